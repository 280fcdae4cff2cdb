package party_test

import (
	"context"
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
