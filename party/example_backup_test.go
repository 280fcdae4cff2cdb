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

// A full backup and those of what was written since may follow each other in one
// file.
func ExampleDB_BackupSince() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	temp, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(temp)

	var file bytes.Buffer
	seq := uint64(0)
	for i, day := range []string{"monday", "tuesday", "wednesday"} {
		check(db.Set(ctx, []byte(day), nil, pebble.Sync))
		if i == 0 {
			seq, err = db.Backup(ctx, &file)
		} else {
			seq, err = db.BackupSince(ctx, &file, seq)
		}
		check(err)
	}

	dir := filepath.Join(temp, "restored")
	for file.Len() > 0 {
		restored, err := party.Restore(ctx, &file, dir)
		check(err)
		fmt.Println(restored <= seq)
	}
	// Output:
	// true
	// true
	// true
}

// A database with a Merger of its own is restored and verified with it.
func ExampleRestoreWith() {
	ctx := context.Background()
	temp, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(temp)
	tags := *pebble.DefaultMerger // to append is what it shall do
	tags.Name = "tags"
	opts := &party.Options{Pebble: &pebble.Options{Merger: &tags}}

	db, err := party.Open(ctx, filepath.Join(temp, "db"), opts)
	check(err)
	check(db.Merge(ctx, []byte("apple"), []byte("red "), pebble.Sync))
	check(db.Merge(ctx, []byte("apple"), []byte("sweet"), pebble.Sync))
	var b bytes.Buffer
	_, err = db.Backup(ctx, &b)
	check(err)
	check(db.Close())

	dir := filepath.Join(temp, "restored")
	_, err = party.Restore(ctx, bytes.NewReader(b.Bytes()), dir)
	fmt.Println("without it:", errors.Is(err, party.ErrIncompatible))
	_, err = party.RestoreWith(ctx, &b, dir, opts)
	check(err)
	restored, err := party.Open(ctx, dir, opts)
	check(err)
	defer restored.Close()
	v, err := restored.Get(ctx, []byte("apple"))
	check(err)
	fmt.Printf("%s\n", v)
	// Output:
	// without it: true
	// red sweet
}

// Verify alone would say that the database has another Merger.
func ExampleVerifyWith() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	tags := *pebble.DefaultMerger
	tags.Name = "tags"
	opts := &party.Options{Pebble: &pebble.Options{Merger: &tags}}
	db, err := party.Open(ctx, dir, opts)
	check(err)
	check(db.Merge(ctx, []byte("apple"), []byte("red"), pebble.Sync))
	check(db.Close())

	_, err = party.Verify(ctx, dir)
	fmt.Println("without it:", errors.Is(err, party.ErrIncompatible))
	v, err := party.VerifyWith(ctx, dir, opts)
	check(err)
	fmt.Println(v.Live, v.Keys)
	// Output:
	// without it: true
	// false 1
}
