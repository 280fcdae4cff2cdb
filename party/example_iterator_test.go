package party_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

func ExampleDB_NewIter() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	for i := range 5 {
		check(db.Set(ctx, fmt.Append(nil, "k", i), fmt.Append(nil, i*i), pebble.NoSync))
	}
	it, err := db.NewIter(ctx, &party.IterOptions{LowerBound: []byte("k1"), UpperBound: []byte("k4")})
	check(err)
	for ok := it.Last(); ok; ok = it.Prev() {
		fmt.Printf("%s=%s\n", it.Key(), it.Value())
	}
	check(it.Close())
	// Output:
	// k3=9
	// k2=4
	// k1=1
}

func ExampleIterator_All() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	for i := range 3 {
		check(db.Set(ctx, fmt.Append(nil, "k", i), fmt.Append(nil, i*i), pebble.NoSync))
	}
	it, err := db.NewIter(ctx, nil)
	check(err)
	for k, v := range it.All() {
		fmt.Printf("%s=%s\n", k, v)
	}
	check(it.Close()) // an error that ended the loop early
	// Output:
	// k0=0
	// k1=1
	// k2=4
}

func ExampleIterator_SeekGE() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	for _, k := range []string{"apple", "cherry"} {
		check(db.Set(ctx, []byte(k), nil, pebble.NoSync))
	}
	it, err := db.NewIter(ctx, &party.IterOptions{KeysOnly: true})
	check(err)
	fmt.Println(it.SeekGE([]byte("banana")), string(it.Key()))
	fmt.Println(it.SeekLT([]byte("banana")), string(it.Key()))
	fmt.Println(it.SeekGE([]byte("date")), it.Error())
	check(it.Close())
	// Output:
	// true cherry
	// true apple
	// false <nil>
}

func ExampleIterator_Backward() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	for i := range 3 {
		check(db.Set(ctx, fmt.Append(nil, "k", i), fmt.Append(nil, i*i), pebble.NoSync))
	}
	it, err := db.NewIter(ctx, nil)
	check(err)
	for k, v := range it.Backward() {
		fmt.Printf("%s=%s\n", k, v)
	}
	check(it.Close()) // an error that ended the loop early
	// Output:
	// k2=4
	// k1=1
	// k0=0
}

// The loop as Pebble's own iterators have it. Whether it ended at the last key or
// by an error is what Close tells.
func ExampleIterator_First() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	for _, k := range []string{"a", "b", "c"} {
		check(db.Set(ctx, []byte(k), nil, pebble.NoSync))
	}

	it, err := db.NewIter(ctx, nil)
	check(err)
	for it.First(); it.Valid(); it.Next() {
		fmt.Printf("%s\n", it.Key())
	}
	check(it.Close())
	// Output:
	// a
	// b
	// c
}

// The last key of each group, from the last group to the first, without a look at
// the keys between.
func ExampleIterator_SeekLT() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	for _, k := range []string{"2023/april", "2023/may", "2024/june", "2025/july", "2025/june"} {
		check(db.Set(ctx, []byte(k), nil, pebble.NoSync))
	}

	it, err := db.NewIter(ctx, &party.IterOptions{KeysOnly: true})
	check(err)
	for ok := it.Last(); ok; ok = it.SeekLT(it.Key()[:5]) {
		fmt.Printf("%s\n", it.Key())
	}
	check(it.Close())
	// Output:
	// 2025/june
	// 2024/june
	// 2023/may
}

// An error ends a loop as the last key does.
func ExampleIterator_Error() {
	db, done := exampleDB()
	defer done()
	ctx, cancel := context.WithCancel(context.Background())
	check(db.Set(ctx, []byte("k"), nil, pebble.NoSync))

	it, err := db.NewIter(ctx, nil)
	check(err)
	cancel()
	for range it.All() {
		fmt.Println("not reached")
	}
	fmt.Println(errors.Is(it.Error(), context.Canceled))
	_ = it.Close() // says the same
	// Output: true
}
