package party_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

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
