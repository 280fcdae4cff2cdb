package party_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// hash is the same for the same keys and values.
func (v view) hash() (sum uint64) {
	for k, value := range v {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%d %s%s", len(k), k, value)
		sum += h.Sum64()
	}
	return sum
}

// watchBounds are those that a request to watch names by their number.
var watchBounds = [...]party.WatchOptions{{}, {LowerBound: []byte("b"), UpperBound: []byte("e")}, {LowerBound: []byte("c")}}

// watch watches within the bounds with the number N until it sees the key Key. It
// keeps a journal in the file Value: 0 and its process id as it begins, and as of
// the marker and of each event the hash of the view that it has then.
func (p *child) watch(ctx context.Context, r request) error {
	f, err := os.OpenFile(string(r.Value), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := appendPair(f, 0, uint64(os.Getpid())); err != nil {
		return err
	}
	w, err := p.db.Watch(ctx, &watchBounds[r.N])
	if err != nil {
		return err
	}
	defer w.Close()
	v := view{}
	for c, err := range w.All(ctx) {
		if err != nil {
			return err
		}
		switch c.Kind {
		case party.ChangeKey:
			v[string(c.Key)] = string(c.Value)
			continue
		case party.ChangeEvent:
			v.apply(c.Event.Ops)
		}
		if err := appendPair(f, c.Seq, v.hash()); err != nil {
			return err
		}
		if _, ok := v[string(r.Key)]; ok {
			return nil
		}
	}
	return errors.New("the changes ended")
}

// churn writes random batches over the same few keys with N goroutines until it
// is told to stop.
func (p *child) churn(ctx context.Context, r request) error {
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for g := range r.N {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(g)))
			key := func() []byte { return fmt.Appendf(nil, "%c%02d", 'a'+rng.IntN(6), rng.IntN(30)) }
			for {
				select {
				case <-p.stop:
					return
				default:
				}
				var b pebble.Batch
				var err error
				for range 1 + rng.IntN(4) {
					switch n := rng.IntN(10); {
					case n < 6:
						err = errors.Join(err, b.Set(key(), fmt.Append(nil, rng.IntN(1000)), nil))
					case n < 8:
						err = errors.Join(err, b.Delete(key(), nil))
					default:
						err = errors.Join(err, b.DeleteRange(key(), key(), nil))
					}
				}
				o := pebble.NoSync
				if rng.IntN(5) == 0 {
					o = pebble.Sync
				}
				if err == nil {
					_, err = p.db.Apply(ctx, &b, o)
				}
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	all.Wait()
	return failed
}
