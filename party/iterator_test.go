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
