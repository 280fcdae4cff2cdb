package party_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// A full backup, and what was written since it, make the database again.
func ExampleDB_Backup() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	temp, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(temp)

	check(db.Set(ctx, []byte("monday"), []byte("1"), pebble.Sync))
	var full, since bytes.Buffer
	seq, err := db.Backup(ctx, &full)
	check(err)
	check(db.Set(ctx, []byte("tuesday"), []byte("2"), pebble.Sync))
	_, err = db.BackupSince(ctx, &since, seq)
	check(err)

	dir := filepath.Join(temp, "restored")
	_, err = party.Restore(ctx, &full, dir)
	check(err)
	_, err = party.Restore(ctx, &since, dir)
	check(err)
	restored, err := party.Open(ctx, dir, nil)
	check(err)
	defer restored.Close()
	values, err := restored.GetMany(ctx, [][]byte{[]byte("monday"), []byte("tuesday")})
	check(err)
	fmt.Printf("%s\n", values)
	// Output: [1 2]
}

// A backup that was cut short is refused.
func ExampleVerifyBackup() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	var b bytes.Buffer
	_, err := db.Backup(ctx, &b)
	check(err)

	b.Truncate(b.Len() / 2)
	_, _, err = party.VerifyBackup(ctx, &b)
	fmt.Println(errors.Is(err, party.ErrCorrupt))
	// Output: true
}

// Verify looks at a database that others have open, or nobody.
func ExampleVerify() {
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()
	db, err := party.Open(ctx, dir, nil)
	check(err)
	defer db.Close()
	check(db.Set(ctx, []byte("a"), []byte("1"), pebble.Sync))

	v, err := party.Verify(ctx, dir)
	check(err)
	fmt.Println(v.Live, v.Keys, v.Compared)
	// Output: true 1 1
}
