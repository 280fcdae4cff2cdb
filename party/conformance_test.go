package party_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// seeds is how many histories the conformance suite runs, of each kind:
//
//	go test ./party -run Conforms/follower -seeds 10000
var (
	seeds     = flag.Int("seeds", 0, "histories of each part of the conformance suite; 0 is a few")
	firstSeed = flag.Uint64("firstseed", 0, "seed of the first history")
)

// walker is what the suite drives: an iterator, whatever it walks over.
type walker interface {
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	Valid() bool
	Key() []byte
	Value() []byte
	Error() error
	Close() error
}

// world is a database and a model of it, Pebble in memory, that gets the same
// writes.
type world struct {
	t     testing.TB
	write func(*pebble.Batch)
	iter  func(*party.IterOptions) walker
	model *pebble.DB
}

func newWorld(t testing.TB, db *party.DB) *world {
	t.Helper()
	model, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: silent{}})
	must(t, err)
	t.Cleanup(func() { must(t, model.Close()) })
	w := &world{
		t: t, model: model,
		write: func(b *pebble.Batch) {
			_, err := db.Apply(within(t), b, pebble.NoSync)
			must(t, err)
		},
		iter: func(o *party.IterOptions) walker {
			it, err := db.NewIter(within(t), o)
			must(t, err)
			return it
		},
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var b pebble.Batch
	for i := 0; i < worldKeys; i += 1 + rng.IntN(2) {
		must(t, b.Set(worldKey(i), worldValue(rng, i%500 == 7), nil))
	}
	w.apply(&b)
	return w
}

func (w *world) apply(b *pebble.Batch) {
	w.t.Helper()
	repr := bytes.Clone(b.Repr())
	w.write(b)
	var again pebble.Batch
	must(w.t, again.SetRepr(repr))
	must(w.t, w.model.Apply(&again, pebble.NoSync))
}

const worldKeys = 1500

// worldKey is the key of that index, in order. The last of them come behind the
// reserved ones.
func worldKey(i int) []byte {
	if i >= worldKeys*9/10 {
		return fmt.Appendf(nil, "\xff\xffq%05d", i)
	}
	return fmt.Appendf(nil, "k%05d", i)
}

// worldValue is mostly small; a large one does not fit a page.
func worldValue(rng *rand.Rand, large bool) []byte {
	n := rng.IntN(400)
	if rng.IntN(50) == 0 {
		n = rng.IntN(30_000)
	}
	if large {
		n = 300_000 + rng.IntN(300_000)
	}
	v := make([]byte, n)
	for i := range min(n, 16) {
		v[i] = byte(rng.Uint32())
	}
	return v
}

// histories is how many to run where few do by default.
func histories(few int) int {
	if *seeds > 0 {
		return *seeds
	}
	if testing.Short() {
		return max(1, few/5)
	}
	return few
}

func never(*rand.Rand) bool { return false }

// snapshotWalker ends the snapshot with its iterator.
type snapshotWalker struct {
	*party.Iterator
	s *party.Snapshot
}

func (w snapshotWalker) Close() error { return errors.Join(w.Iterator.Close(), w.s.Close()) }

func TestIterator_Conforms(t *testing.T) {
	t.Run("leader", func(t *testing.T) {
		db := open(t, newDir(t), nil)
		leads(t, db)
		w := newWorld(t, db)
		for seed := range histories(25) {
			w.run(*firstSeed+uint64(seed), never)
		}
	})
	t.Run("follower", func(t *testing.T) {
		dir := newDir(t)
		start(t, config{Dir: dir})
		db := open(t, dir, nil)
		hasRole(t, db, party.Following)
		w := newWorld(t, db)
		for seed := range histories(25) {
			w.run(*firstSeed+uint64(seed), never)
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		dir := newDir(t)
		start(t, config{Dir: dir})
		db := open(t, dir, nil)
		w := newWorld(t, db)
		w.iter = func(o *party.IterOptions) walker {
			s, err := db.NewSnapshot(within(t))
			must(t, err)
			it, err := s.NewIter(within(t), o)
			must(t, err)
			return snapshotWalker{it, s}
		}
		for seed := range histories(10) {
			w.run(*firstSeed+uint64(seed), never)
		}
	})
	t.Run("leaders that resign", func(t *testing.T) {
		dir := newDir(t)
		dbs := []*party.DB{open(t, dir, nil), open(t, dir, nil), open(t, dir, nil)}
		w := newWorld(t, dbs[2])
		for seed := range histories(12) {
			w.run(*firstSeed+uint64(seed), func(rng *rand.Rand) bool {
				if rng.IntN(25) > 0 {
					return false
				}
				for _, db := range dbs {
					s, err := db.Status(within(t))
					must(t, err)
					if s.Role == party.Leading {
						must(t, db.Resign(within(t)))
						break
					}
				}
				return true
			})
		}
	})
	t.Run("leaders that are killed", func(t *testing.T) {
		dir := newDir(t)
		leader := start(t, config{Dir: dir})
		db := open(t, dir, nil)
		w := newWorld(t, db)
		for seed := range histories(3) {
			w.run(*firstSeed+uint64(seed), func(rng *rand.Rand) bool {
				if rng.IntN(25) > 0 {
					return false
				}
				if leader == nil { // this handle leads
					leader = start(t, config{Dir: dir})
					must(t, db.Resign(within(t)))
				} else {
					leader.kill()
					leader = nil
				}
				return true
			})
		}
	})
	// The point in time is in the follower's own process: whoever leads, it stays.
	t.Run("local reads", func(t *testing.T) {
		dir := newDir(t)
		leader := start(t, config{Dir: dir})
		db := open(t, dir, locals())
		w := newWorld(t, db)
		for seed := range histories(12) {
			s, err := db.Status(within(t))
			must(t, err)
			for s.Role == party.Leading {
				if leader == nil {
					leader = start(t, config{Dir: dir})
				}
				must(t, db.Resign(within(t)))
				s, err = db.Status(within(t))
				must(t, err)
			}
			readsLocally(t, db)
			w.run(*firstSeed+uint64(seed), func(rng *rand.Rand) bool {
				if leader != nil && rng.IntN(60) == 0 {
					leader.kill()
					leader = nil
				}
				return false
			})
		}
	})
}
