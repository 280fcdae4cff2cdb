package party_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// exampleDB opens a database that done closes and removes.
func exampleDB() (db *party.DB, done func()) {
	dir, err := os.MkdirTemp("", "party-example")
	if err != nil {
		log.Fatal(err)
	}
	db, err = party.Open(context.Background(), dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		_ = db.Close()
		_ = os.RemoveAll(dir)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Two handles, here in one process, have one database open.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)

	one, err := party.Open(ctx, dir, nil)
	check(err)
	two, err := party.Open(ctx, dir, nil)
	check(err)

	check(two.Set(ctx, []byte("hello"), []byte("party"), pebble.Sync))
	v, err := one.Get(ctx, []byte("hello"))
	check(err)
	fmt.Printf("%s\n", v)

	check(one.Close()) // it led; the other takes over
	v, err = two.Get(ctx, []byte("hello"))
	check(err)
	fmt.Printf("%s\n", v)
	check(two.Close())
	// Output:
	// party
	// party
}

func ExampleOptions() {
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)

	led := make(chan struct{}, 1)
	db, err := party.Open(context.Background(), dir, &party.Options{
		Pebble:    &pebble.Options{MemTableSize: 16 << 20},
		Retention: party.Retention{MaxBytes: 64 << 20},
		Events: party.Events{RoleChanged: func(c party.RoleChange) {
			if c.Role == party.Leading {
				led <- struct{}{}
			}
		}},
	})
	check(err)
	<-led
	fmt.Println("leading")
	check(db.Close())
	// Output: leading
}

// A handle that follows keeps a copy of the database and reads that.
func ExampleOptions_localReads() {
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()
	leader, err := party.Open(ctx, dir, nil) // in another process, say
	check(err)
	defer leader.Close()
	db, err := party.Open(ctx, dir, &party.Options{LocalReads: true})
	check(err)
	defer db.Close()

	check(leader.Set(ctx, []byte("k"), []byte("v"), pebble.Sync))
	v, err := db.Get(ctx, []byte("k")) // asks nobody, once the copy is there
	fmt.Printf("%s %v\n", v, err)
	// Output: v <nil>
}

func ExampleDB_Get() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	_, err := db.Get(ctx, []byte("k"))
	fmt.Println(errors.Is(err, pebble.ErrNotFound))
	check(db.Set(ctx, []byte("k"), []byte("v"), nil))
	v, err := db.Get(ctx, []byte("k"))
	fmt.Printf("%s %v\n", v, err)
	// Output:
	// true
	// v <nil>
}

func ExampleDB_GetMany() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	check(db.Set(ctx, []byte("a"), []byte("1"), nil))
	check(db.Set(ctx, []byte("c"), nil, nil))
	values, err := db.GetMany(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")})
	check(err)
	for _, v := range values {
		fmt.Printf("%q there: %t\n", v, v != nil)
	}
	// Output:
	// "1" there: true
	// "" there: false
	// "" there: true
}

func ExampleDB_Has() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	check(db.Set(ctx, []byte("k"), nil, nil))
	has, err := db.Has(ctx, []byte("k"))
	fmt.Println(has, err)
	// Output: true <nil>
}

// A nil *pebble.WriteOptions means pebble.Sync.
func ExampleDB_Set() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	check(db.Set(ctx, []byte("survives"), []byte("a power cut"), pebble.Sync))
	check(db.Set(ctx, []byte("survives"), []byte("kill -9"), pebble.NoSync))
	v, err := db.Get(ctx, []byte("survives"))
	fmt.Printf("%s %v\n", v, err)
	// Output: kill -9 <nil>
}

func ExampleDB_Delete() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	check(db.Set(ctx, []byte("k"), []byte("v"), nil))
	check(db.Delete(ctx, []byte("k"), nil))
	has, err := db.Has(ctx, []byte("k"))
	fmt.Println(has, err)
	// Output: false <nil>
}

func ExampleDB_DeleteRange() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	for _, k := range []string{"a", "b", "c", "d"} {
		check(db.Set(ctx, []byte(k), nil, pebble.NoSync))
	}
	check(db.DeleteRange(ctx, []byte("b"), []byte("d"), nil))
	it, err := db.NewIter(ctx, nil)
	check(err)
	for k := range it.All() {
		fmt.Printf("%s\n", k)
	}
	check(it.Close())
	// Output:
	// a
	// d
}

// Pebble's default Merger appends.
func ExampleDB_Merge() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	check(db.Merge(ctx, []byte("log"), []byte("one,"), nil))
	check(db.Merge(ctx, []byte("log"), []byte("two,"), nil))
	v, err := db.Get(ctx, []byte("log"))
	fmt.Printf("%s %v\n", v, err)
	// Output: one,two, <nil>
}

// A batch takes effect as a whole. It needs no Pebble database.
func ExampleDB_Apply() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	var b pebble.Batch
	check(b.Set([]byte("from"), []byte("90"), nil))
	check(b.Set([]byte("to"), []byte("10"), nil))
	first, err := db.Apply(ctx, &b, pebble.Sync)
	check(err)
	second, err := db.Apply(ctx, &b, pebble.Sync)
	check(err)
	fmt.Println(second > first)
	// Output: true
}

func ExampleDB_CompareAndSwap() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	key := []byte("lease")
	for _, c := range []struct{ old, new []byte }{
		{nil, []byte("mine")},            // take it if nobody has it
		{nil, []byte("yours")},           // somebody has
		{[]byte("mine"), []byte("mine")}, // still mine?
		{[]byte("mine"), nil},            // give it back
	} {
		swapped, err := db.CompareAndSwap(ctx, key, c.old, c.new, nil)
		fmt.Println(swapped, err)
	}
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
	// true <nil>
}

func ExampleDB_Status() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()

	s, err := db.Status(ctx)
	check(err)
	fmt.Println(s.Role, s.Responding, s.Term, s.LeaderPID == os.Getpid())
	// Output: leading true 1 true
}

func ExampleDB_Resign() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	one, err := party.Open(ctx, dir, nil)
	check(err)
	two, err := party.Open(ctx, dir, nil)
	check(err)

	check(one.Resign(ctx))
	check(one.Set(ctx, []byte("k"), []byte("v"), nil)) // goes to the other now
	s, err := two.Status(ctx)
	check(err)
	fmt.Println("two:", s.Role)
	check(one.Close())
	check(two.Close())
	// Output: two: leading
}

// After the last handle has closed plain Pebble can open the directory.
func ExampleDB_Close() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	db, err := party.Open(ctx, dir, nil)
	check(err)
	check(db.Set(ctx, []byte("k"), []byte("v"), pebble.NoSync))
	check(db.Close())
	fmt.Println(errors.Is(db.Close(), party.ErrClosed))

	plain, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	check(err)
	v, closer, err := plain.Get([]byte("k"))
	check(err)
	fmt.Printf("%s\n", v)
	check(closer.Close())
	check(plain.Close())
	// Output:
	// true
	// v
}
