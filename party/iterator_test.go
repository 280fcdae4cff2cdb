package party_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

const iterKeys = 3000

func iterKey(i int) []byte { return fmt.Appendf(nil, "key%06d", i) }

// fillIter writes keys whose values make many pages.
func fillIter(t *testing.T, db *party.DB) {
	t.Helper()
	var b pebble.Batch
	for i := range iterKeys {
		must(t, b.Set(iterKey(i), fmt.Appendf(nil, "%0100d", i), nil))
	}
	_, err := db.Apply(within(t), &b, nil)
	must(t, err)
}

// walkRandomly moves it at random and compares it with a position that is kept
// beside; disturb is called before some of the moves.
func walkRandomly(t *testing.T, it *party.Iterator, rng *rand.Rand, lo, hi, moves int, keysOnly bool, disturb func(move int)) {
	t.Helper()
	if it.Next() != (lo < hi) {
		t.Fatal("the first Next does not go to the first key")
	}
	at := lo // lo-1: in front, hi: behind
	for m := range moves {
		disturb(m)
		var ok bool
		var what string
		steps := 1
		switch k := rng.IntN(20); {
		case k == 0:
			at, ok, what = lo, it.First(), "First"
		case k == 1:
			at, ok, what = hi-1, it.Last(), "Last"
		case k < 4:
			i := rng.IntN(iterKeys + 10)
			at = min(max(i, lo), hi)
			ok, what = it.SeekGE(iterKey(i)), fmt.Sprint("SeekGE ", i)
		case k < 6:
			i := rng.IntN(iterKeys + 10)
			at = max(min(i, hi)-1, lo-1)
			ok, what = it.SeekLT(iterKey(i)), fmt.Sprint("SeekLT ", i)
		case k < 13:
			steps = 1 + rng.IntN(300)
			for range steps {
				ok = it.Next()
				at = min(at+1, hi)
				if !ok {
					break
				}
			}
			what = fmt.Sprint("Next ", steps)
		default:
			steps = 1 + rng.IntN(300)
			for range steps {
				ok = it.Prev()
				at = max(at-1, lo-1)
				if !ok {
					break
				}
			}
			what = fmt.Sprint("Prev ", steps)
		}
		must(t, it.Error())
		there := at >= lo && at < hi
		if ok != there || it.Valid() != there {
			t.Fatalf("move %d, %s: %t, valid %t, want to be at %d", m, what, ok, it.Valid(), at)
		}
		if !there {
			if it.Key() != nil || it.Value() != nil {
				t.Fatalf("move %d, %s: no key, but %q", m, what, it.Key())
			}
			continue
		}
		if !bytes.Equal(it.Key(), iterKey(at)) {
			t.Fatalf("move %d, %s: at %q, want %q", m, what, it.Key(), iterKey(at))
		}
		if keysOnly && it.Value() != nil || !keysOnly && !bytes.Equal(it.Value(), fmt.Appendf(nil, "%0100d", at)) {
			t.Fatalf("move %d, %s: the value of %q is %q", m, what, it.Key(), it.Value())
		}
	}
}

func TestIterator_WalksAnyWay(t *testing.T) {
	inEveryRole(t, func(t *testing.T, db *party.DB) {
		fillIter(t, db)
		for seed, o := range []*party.IterOptions{
			nil, {}, {KeysOnly: true}, {Strict: true},
			{LowerBound: iterKey(100)}, {UpperBound: iterKey(2000)},
			{LowerBound: iterKey(1000), UpperBound: iterKey(1010), KeysOnly: true},
			{LowerBound: iterKey(50), UpperBound: iterKey(50)},
		} {
			lo, hi := 0, iterKeys
			var bounds party.IterOptions
			if o != nil {
				bounds = *o
				if _, err := fmt.Sscanf(string(o.LowerBound), "key%d", &lo); err != nil && o.LowerBound != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Sscanf(string(o.UpperBound), "key%d", &hi); err != nil && o.UpperBound != nil {
					t.Fatal(err)
				}
				o.LowerBound, o.UpperBound = bytes.Clone(o.LowerBound), bytes.Clone(o.UpperBound)
			}
			it, err := db.NewIter(within(t), o)
			must(t, err)
			if o != nil { // the bounds are the caller's
				clear(o.LowerBound)
				clear(o.UpperBound)
			}
			walkRandomly(t, it, rand.New(rand.NewPCG(uint64(seed), 1)), lo, hi, 60, bounds.KeysOnly, func(int) {})
			must(t, it.Close())
			if it.First() || it.Next() || it.Valid() {
				t.Error("an iterator moved after Close")
			}
		}
	})
}

// TestIterator_ResumesOnANewLeader: leaders die at random points of walks in all
// directions.
func TestIterator_ResumesOnANewLeader(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, nil)
	fillIter(t, db)
	rng := rand.New(rand.NewPCG(7, 7))
	depose := func() {
		t.Helper()
		if leader == nil { // this handle leads; hand over to a new process
			leader = start(t, config{Dir: dir})
			must(t, db.Resign(within(t)))
		} else {
			leader.kill()
			leader = nil
		}
	}
	t.Run("any way", func(t *testing.T) {
		it, err := db.NewIter(within(t), nil)
		must(t, err)
		walkRandomly(t, it, rng, 0, iterKeys, 120, false, func(m int) {
			if m%20 == 19 {
				depose()
			}
		})
		must(t, it.Close())
	})
	t.Run("forwards with a slow loop", func(t *testing.T) {
		it, err := db.NewIter(within(t), nil)
		must(t, err)
		i := 0
		for k := range it.All() {
			if !bytes.Equal(k, iterKey(i)) {
				t.Fatalf("%q, want %q", k, iterKey(i))
			}
			if i++; i%900 == rng.IntN(900) || i == 1500 {
				depose()
				set(t, db, "something else", "meanwhile") // there is a new leader now
				must(t, db.Delete(within(t), []byte("something else"), nil))
			}
		}
		must(t, it.Close())
		if i != iterKeys {
			t.Errorf("%d keys", i)
		}
	})
	t.Run("backwards", func(t *testing.T) {
		it, err := db.NewIter(within(t), nil)
		must(t, err)
		i := iterKeys
		for ok := it.Last(); ok; ok = it.Prev() {
			if i--; !bytes.Equal(it.Key(), iterKey(i)) {
				t.Fatalf("%q, want %q", it.Key(), iterKey(i))
			}
			if i == 2000 || i == 400 {
				depose()
			}
		}
		must(t, it.Close())
		if i != 0 {
			t.Errorf("%d keys are missing", i)
		}
	})
	t.Run("strict", func(t *testing.T) {
		it, err := db.NewIter(within(t), &party.IterOptions{Strict: true})
		must(t, err)
		i := 0
		for range it.All() {
			if i++; i == 10 {
				depose()
			}
		}
		if i == iterKeys {
			t.Error("a strict iterator came to the end on another leader")
		}
		want(t, it.Error(), party.ErrSnapshotLost)
		want(t, it.Close(), party.ErrSnapshotLost)
	})
}

func TestIterator_EndsWithItsContext(t *testing.T) {
	inEveryRole(t, func(t *testing.T, db *party.DB) {
		fillIter(t, db)
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		it, err := db.NewIter(ctx, nil)
		must(t, err)
		n := 0
		for range it.All() {
			if n++; n == 10 {
				cancel()
			}
		}
		if n == iterKeys {
			t.Error("the iterator went on to the end after its context")
		}
		want(t, it.Close(), context.Canceled)
	})
}

// iterators waits until the leader holds so many.
func iterators(t *testing.T, db *party.DB, n int) {
	t.Helper()
	until(t, fmt.Sprintf("the leader holds %d iterators", n), func() bool {
		s, err := db.Status(within(t))
		must(t, err)
		return s.Responding && s.Iterators == n
	})
}

func TestIterator_IsFreedWhenClosed(t *testing.T) {
	askingTheLeader(t, func(t *testing.T, db *party.DB) {
		set(t, db, "k", "v")
		var all []*party.Iterator
		for i := range 20 {
			it, err := db.NewIter(within(t), nil)
			must(t, err)
			if i%2 == 0 && !it.First() {
				t.Fatal(it.Error())
			}
			all = append(all, it)
		}
		iterators(t, db, 20)
		for _, it := range all[:15] {
			must(t, it.Close())
		}
		iterators(t, db, 5)
		for _, it := range all {
			if err := it.Close(); err != nil {
				want(t, err, party.ErrClosed) // the second time
			}
		}
		iterators(t, db, 0)
	})
}

func TestIterator_IsFreedWhenItsProcessDies(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, nil)
	leads(t, db)
	set(t, db, "k", "v")
	dies, stays := start(t, config{Dir: dir}), start(t, config{Dir: dir})
	if a := dies.do(request{Op: "iterate", N: 7}); a.N != 7 {
		t.Fatalf("%d iterators have a key", a.N)
	}
	stays.do(request{Op: "iterate", N: 3})
	iterators(t, db, 10)
	dies.kill()
	iterators(t, db, 3)
}

// TestIterator_SeesTheMomentItWasOpened: whatever is written after NewIter, the
// first move included, and in whatever way the iterator is moved again.
func TestIterator_SeesTheMomentItWasOpened(t *testing.T) {
	inEveryRole(t, func(t *testing.T, db *party.DB) {
		fillIter(t, db)
		it, err := db.NewIter(within(t), &party.IterOptions{Strict: true})
		must(t, err)
		must(t, db.DeleteRange(within(t), iterKey(0), iterKey(iterKeys), nil))
		set(t, db, "a", "new")
		for range 2 {
			n := 0
			for k := range it.All() {
				if !bytes.Equal(k, iterKey(n)) {
					t.Fatalf("at %q, want %q", k, iterKey(n))
				}
				n++
			}
			for k := range it.Backward() {
				if n--; !bytes.Equal(k, iterKey(n)) {
					t.Fatalf("at %q, want %q", k, iterKey(n))
				}
			}
			if n != 0 || it.SeekGE([]byte("a")) && string(it.Key()) == "a" {
				t.Fatalf("%d, at %q", n, it.Key())
			}
		}
		must(t, it.Close())
		if got := scan(t, db, nil); len(got) != 1 || got[0] != "a=new" {
			t.Errorf("a new iterator sees %.200q", got)
		}
	})
}

// TestIterator_LargePairs: keys and values that fit no page, or no message, as
// what is read, sought and bounded by.
func TestIterator_LargePairs(t *testing.T) {
	sizes := []int{100, 4 << 10, 256<<10 - 5, 256 << 10, 1 << 20, 9 << 20}
	if raceEnabled || testing.Short() {
		sizes[4], sizes[5] = 300<<10, 1<<20+1
	}
	inEveryRole(t, func(t *testing.T, db *party.DB) {
		var keys []string
		for i, n := range sizes {
			keys = append(keys, fmt.Sprintf("%d a", i), fmt.Sprintf("%d b", i)+string(pattern(n/3)))
			must(t, db.Set(within(t), []byte(keys[2*i]), pattern(n), pebble.NoSync))
			must(t, db.Set(within(t), []byte(keys[2*i+1]), pattern(n), pebble.NoSync))
		}
		for _, keysOnly := range []bool{false, true} {
			it, err := db.NewIter(within(t), &party.IterOptions{KeysOnly: keysOnly, LowerBound: []byte(keys[1]), UpperBound: []byte(keys[11])})
			must(t, err)
			at := func(ok bool, i int) {
				t.Helper()
				if !ok || string(it.Key()) != keys[i] {
					t.Fatalf("%t, at a key of %d bytes, want %d; %v", ok, len(it.Key()), len(keys[i]), it.Error())
				}
				if keysOnly && it.Value() != nil || !keysOnly && !bytes.Equal(it.Value(), pattern(sizes[i/2])) {
					t.Fatalf("key %d has a value of %d bytes", i, len(it.Value()))
				}
			}
			n := 1
			for range it.All() {
				at(true, n)
				n++
			}
			for range it.Backward() {
				n--
				at(true, n)
			}
			for i := 2; i < 10; i++ { // turns at each
				at(it.SeekGE([]byte(keys[i])), i)
				at(it.Prev(), i-1)
				at(it.Next(), i)
				at(it.SeekLT([]byte(keys[i])), i-1)
				at(it.Next(), i)
				at(it.Next(), i+1-i/10)
			}
			must(t, it.Close())
		}
	})
}

// TestIterator_NoRetry: an iterator that waits for its leader learns of its loss;
// one that has nothing under way goes on.
func TestIterator_NoRetry(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, &party.Options{NoRetry: true})
	fillIter(t, db)
	it, err := db.NewIter(within(t), nil)
	must(t, err)
	if !it.First() {
		t.Fatal(it.Error())
	}
	leader.kill()
	leads(t, db)
	n := 1
	for it.Next() {
		n++
	}
	if n != iterKeys {
		t.Fatalf("%d keys, %v", n, it.Error())
	}
	must(t, it.Close())
}

func TestIterator_EndsWithItsHandle(t *testing.T) {
	for _, role := range []party.Role{party.Leading, party.Following} {
		t.Run(role.String(), func(t *testing.T) {
			dir := newDir(t)
			if role == party.Following {
				start(t, config{Dir: dir})
			}
			db := open(t, dir, nil)
			hasRole(t, db, role)
			fillIter(t, db)
			it, err := db.NewIter(within(t), nil)
			must(t, err)
			n := 0
			for range it.All() {
				if n++; n == 10 {
					must(t, db.Close())
				}
			}
			if n == iterKeys {
				t.Error("the iterator came to the end after its handle was closed")
			}
			want(t, it.Error(), party.ErrClosed)
			if it.First() || it.SeekLT([]byte("x")) {
				t.Error("it moved again")
			}
			want(t, it.Close(), party.ErrClosed)
		})
	}
}
