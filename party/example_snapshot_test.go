package party_test

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// A snapshot goes on answering as it did, while others write and leaders change.
func ExampleDB_NewSnapshot() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	check(db.Set(ctx, []byte("color"), []byte("red"), pebble.Sync))

	s, err := db.NewSnapshot(ctx)
	check(err)
	check(db.Set(ctx, []byte("color"), []byte("green"), pebble.Sync))
	check(db.Resign(ctx))

	v, err := s.Get(ctx, []byte("color"))
	check(err)
	now, err := db.Get(ctx, []byte("color"))
	check(err)
	fmt.Printf("%s, now %s\n", v, now)
	check(s.Close())
	// Output: red, now green
}

func ExampleSnapshot_NewIter() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	check(db.Set(ctx, []byte("a"), []byte("1"), pebble.Sync))
	check(db.Set(ctx, []byte("b"), []byte("2"), pebble.Sync))

	s, err := db.NewSnapshot(ctx)
	check(err)
	defer s.Close()
	check(db.Delete(ctx, []byte("b"), pebble.Sync))

	it, err := s.NewIter(ctx, nil)
	check(err)
	for k, v := range it.All() {
		fmt.Printf("%s=%s\n", k, v)
	}
	check(it.Close())
	// Output:
	// a=1
	// b=2
}

// GetMany of a snapshot is one point in time; that of a DB is not.
func ExampleSnapshot_GetMany() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	var b pebble.Batch
	check(b.Set([]byte("from"), []byte("90"), nil))
	check(b.Set([]byte("to"), []byte("10"), nil))
	_, err := db.Apply(ctx, &b, pebble.Sync)
	check(err)

	s, err := db.NewSnapshot(ctx)
	check(err)
	defer s.Close()
	values, err := s.GetMany(ctx, [][]byte{[]byte("from"), []byte("to"), []byte("fee")})
	check(err)
	fmt.Printf("%s %s %t\n", values[0], values[1], values[2] == nil)
	// Output: 90 10 true
}

// The sequence number says which events are in a snapshot.
func ExampleSnapshot_Seq() {
	db, done := exampleDB()
	defer done()
	ctx := context.Background()
	var b pebble.Batch
	check(b.Set([]byte("a"), []byte("1"), nil))
	seq, err := db.Apply(ctx, &b, pebble.Sync)
	check(err)

	s, err := db.NewSnapshot(ctx)
	check(err)
	defer s.Close()
	fmt.Println(s.Seq() >= seq)
	// Output: true
}
