package party_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// counters is how many counters of each kind there are: few, so that
// compare-and-swaps meet.
const counters = 3

// count increments counters at random until it is told to stop, and returns how
// many increments of each were acknowledged: by compare-and-swap, then by Merge,
// then the number of keys set under r.Key.
func (p *child) count(ctx context.Context, r request) ([]int, error) {
	return countInto(ctx, p.db, r.N, r.Seed, string(r.Key), p.stop, &p.acks)
}

func countInto(ctx context.Context, db *party.DB, goroutines int, seed uint64, name string, stop <-chan struct{}, acks *atomic.Int64) ([]int, error) {
	counts := make([]int, 2*counters+goroutines)
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			mine := make([]int, len(counts))
			err := counting(ctx, db, rng, fmt.Sprintf("%s-%d", name, g), 2*counters+g, mine, stop, acks)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for i, n := range mine {
				counts[i] += n
			}
		})
	}
	all.Wait()
	return counts, failed
}

func counting(ctx context.Context, db *party.DB, rng *rand.Rand, name string, slot int, counts []int, stop <-chan struct{}, acks *atomic.Int64) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		o := pebble.Sync
		if rng.IntN(4) == 0 {
			o = pebble.NoSync
		}
		i := rng.IntN(counters)
		switch rng.IntN(3) {
		case 0:
			swapped, err := increment(ctx, db, fmt.Appendf(nil, "cas%d", i), o)
			if err != nil {
				return err
			}
			if swapped {
				counts[i]++
			}
		case 1:
			if err := db.Merge(ctx, fmt.Appendf(nil, "merge%d", i), []byte("1"), o); err != nil {
				return fmt.Errorf("merge: %w", err)
			}
			counts[counters+i]++
		case 2:
			if err := db.Set(ctx, fmt.Appendf(nil, "set-%s-%06d", name, counts[slot]), []byte(name), o); err != nil {
				return fmt.Errorf("set: %w", err)
			}
			counts[slot]++
		}
		acks.Add(1)
	}
}

// increment tries once to add one to a counter.
func increment(ctx context.Context, db *party.DB, key []byte, o *pebble.WriteOptions) (bool, error) {
	old, err := db.Get(ctx, key)
	n := 0
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		old = nil
	case err != nil:
		return false, fmt.Errorf("get: %w", err)
	default:
		if n, err = strconv.Atoi(string(old)); err != nil {
			return false, err
		}
	}
	swapped, err := db.CompareAndSwap(ctx, key, old, strconv.AppendInt(nil, int64(n+1), 10), o)
	if err != nil {
		return false, fmt.Errorf("compare and swap: %w", err)
	}
	return swapped, nil
}
