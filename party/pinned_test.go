package party_test

import (
	"bytes"
	"flag"
	"fmt"
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

// What the body of a loop looks at stays as it is while that runs, whatever is
// closed meanwhile, and the iterator ends as it moves on.
func TestIterator_KeepsWhatItLooksAt(t *testing.T) {
	type opened struct {
		it  *party.Iterator
		end func() // of what the iterator is over
	}
	for name, open := range map[string]func(t *testing.T, db *party.DB) opened{
		"handle": func(t *testing.T, db *party.DB) opened {
			it, err := db.NewIter(within(t), nil)
			must(t, err)
			return opened{it, func() { must(t, db.Close()) }}
		},
		"snapshot": func(t *testing.T, db *party.DB) opened {
			s := take(t, db)
			it, err := s.NewIter(within(t), nil)
			must(t, err)
			return opened{it, func() { must(t, s.Close()) }}
		},
		"snapshot of a handle": func(t *testing.T, db *party.DB) opened {
			it, err := take(t, db).NewIter(within(t), nil)
			must(t, err)
			return opened{it, func() { must(t, db.Close()) }}
		},
	} {
		for _, role := range []string{"leading", "following", "local"} {
			t.Run(name+", "+role, func(t *testing.T) {
				dir := newDir(t)
				if role != "leading" {
					start(t, config{Dir: dir})
				}
				o := quietly()
				o.LocalReads = role == "local"
				db, err := party.Open(within(t), dir, o)
				must(t, err)
				t.Cleanup(func() { closeDB(t, db) })
				fillIter(t, db)
				if o.LocalReads {
					readsLocally(t, db)
				}
				for _, reverse := range []bool{false, true} {
					if reverse && name != "snapshot" {
						break // the handle is closed
					}
					x := open(t, db)
					start, move := x.it.First, x.it.Next
					if reverse {
						start, move = x.it.Last, x.it.Prev
					}
					n := 0
					for ok := start(); ok; ok = move() {
						if n++; n != 300 {
							continue
						}
						key, value := x.it.Key(), x.it.Value()
						wasKey, wasValue := bytes.Clone(key), bytes.Clone(value)
						x.end()
						if !bytes.Equal(key, wasKey) || !bytes.Equal(value, wasValue) || !bytes.Equal(x.it.Key(), wasKey) {
							t.Errorf("key %q became %q", wasKey, key)
						}
					}
					if n < 300 || n == iterKeys {
						t.Errorf("%d keys", n)
					}
					want(t, x.it.Error(), party.ErrClosed)
					if x.it.Key() != nil || x.it.Value() != nil || x.it.Valid() || x.it.First() {
						t.Error("it is somewhere")
					}
					want(t, x.it.Close(), party.ErrClosed)
				}
				closeDB(t, db)
				if left := replicaFolders(t, dir); len(left) > 0 {
					t.Errorf("%q are left", left)
				}
			})
		}
	}
}

// A replica that an iterator looks at is there until that is closed, and then
// nothing is left of it, when the handle was closed long before.
func TestIterator_IsTheLastOnItsReplica(t *testing.T) {
	dir := newDir(t)
	leads(t, open(t, dir, quietly()))
	db := open(t, dir, locals())
	set(t, db, "k", "v")
	readsLocally(t, db)
	var all []*party.Iterator
	for range 3 {
		it, err := db.NewIter(within(t), nil)
		must(t, err)
		if !it.First() {
			t.Fatal(it.Error())
		}
		all = append(all, it)
	}
	must(t, db.Close())
	for i, it := range all {
		if n := len(replicaFolders(t, dir)); n != 1 {
			t.Errorf("%d replicas in front of iterator %d", n, i)
		}
		if string(it.Key()) != "k" || string(it.Value()) != "v" {
			t.Errorf("it is at %q, %q", it.Key(), it.Value())
		}
		must(t, it.Close())
	}
	if left := replicaFolders(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// hugeValues has TestIterator_HugeValue take a value of 200 MB, which needs 2 GB of memory.
var hugeValues = flag.Bool("huge", false, "a value of 200 MB in TestIterator_HugeValue")

// A value much larger than a message comes through every kind of iterator.
func TestIterator_HugeValue(t *testing.T) {
	size := 20 << 20
	if *hugeValues {
		size = 200 << 20
	}
	dir := newDir(t)
	start(t, config{Dir: dir}).do(request{Op: "fill", Key: []byte("b"), N: size, NoSync: true})
	wanted := pattern(size)
	for _, o := range []*party.Options{quietly(), locals()} {
		t.Run(fmt.Sprintf("local %t", o.LocalReads), func(t *testing.T) {
			db := open(t, dir, o)
			hasRole(t, db, party.Following)
			set(t, db, "a", "1")
			set(t, db, "c", "3")
			if o.LocalReads {
				readsLocally(t, db)
			}
			s := take(t, db)
			for name, newIter := range map[string]func() (*party.Iterator, error){
				"handle":   func() (*party.Iterator, error) { return db.NewIter(within(t), nil) },
				"snapshot": func() (*party.Iterator, error) { return s.NewIter(within(t), nil) },
			} {
				it, err := newIter()
				must(t, err)
				if !it.First() || string(it.Value()) != "1" || !it.Next() {
					t.Fatalf("%s: at %q, %v", name, it.Key(), it.Error())
				}
				if string(it.Key()) != "b" || !bytes.Equal(it.Value(), wanted) {
					t.Fatalf("%s: %q has %d bytes", name, it.Key(), len(it.Value()))
				}
				if !it.Next() || string(it.Key()) != "c" || !it.Prev() || !bytes.Equal(it.Value(), wanted) {
					t.Fatalf("%s: to and fro: at %q, %v", name, it.Key(), it.Error())
				}
				must(t, it.Close())
			}
		})
	}
}
