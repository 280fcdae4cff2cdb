package party

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

func context30(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 60*time.Second)
}

// openHere opens dir for one test, which it bounds too.
func openHere(t *testing.T, dir string) (context.Context, *DB) {
	t.Helper()
	ctx, cancel := context30(t)
	t.Cleanup(cancel)
	db, err := Open(ctx, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return ctx, db
}

// fakeRoute answers bundles at random moments until it is lost.
type fakeRoute struct {
	t    *testing.T
	log  *fakeLog
	lost chan struct{}

	mu      sync.Mutex
	rng     *rand.Rand
	pending [4]chan struct{} // closed when the bundle in the slot is answered
}

// fakeLog is what outlives routes: which command had effect, in order.
type fakeLog struct {
	mu    sync.Mutex
	last  uint64
	seen  map[uint64]int
	order bool
}

func (r *fakeRoute) send(slot int, bundle []*call) {
	answered := make(chan struct{})
	r.mu.Lock()
	r.pending[slot] = answered
	fate := r.rng.IntN(20)
	r.mu.Unlock()
	// What is lost may have had effect before, or not.
	if fate > 0 {
		r.log.mu.Lock()
		for _, c := range bundle {
			if c.cmd == nil {
				continue
			}
			n := c.cmd.Number
			if r.log.seen[n] == 0 {
				if n <= r.log.last {
					r.log.order = false
				}
				r.log.last = n
			} else if !c.cmd.Retry {
				r.t.Errorf("command %d was sent again without Retry", n)
			}
			r.log.seen[n]++
		}
		r.log.mu.Unlock()
	}
	if fate > 1 {
		go close(answered)
	}
}

func (r *fakeRoute) wait(ctx context.Context, slot int, bundle []*call) error {
	r.mu.Lock()
	answered := r.pending[slot]
	r.mu.Unlock()
	select {
	case <-answered:
		for _, c := range bundle {
			c.answer = apply.Answer{Outcome: apply.OutcomeDone, Seq: 1}
		}
		return nil
	case <-ctx.Done():
		return errLeft
	case <-r.lost:
		return errLost
	}
}

// TestLane_RandomHistories: routes come and go, callers leave; each call ends
// once, none is left behind, effects are in the order of the numbers.
func TestLane_RandomHistories(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		slots := 1 + int(seed%2)*3
		l := newLane(slots, false)
		log := &fakeLog{seen: map[uint64]int{}, order: true}
		stop := make(chan struct{})
		var routes sync.WaitGroup
		routes.Go(func() {
			for i := uint64(0); ; i++ {
				r := &fakeRoute{t: t, log: log, lost: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, i+2))}
				l.setRoute(r)
				select {
				case <-stop:
					close(r.lost)
					return
				case <-time.After(time.Duration(rng.IntN(2000)) * time.Microsecond):
				}
				l.setRoute(nil)
				close(r.lost)
			}
		})
		ctx, cancel := context30(t)
		var callers sync.WaitGroup
		for g := range uint64(12) {
			callers.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 1000+g))
				for range 150 {
					own, leave := ctx, context.CancelFunc(func() {})
					if rng.IntN(4) == 0 {
						own, leave = context.WithTimeout(ctx, time.Duration(rng.IntN(300))*time.Microsecond)
					}
					c := &call{size: rng.IntN(bundleBytes / 8)}
					if slots == 1 {
						c.cmd = &apply.Command{}
					} else {
						c.keys = [][]byte{nil}
					}
					err := l.do(own, c)
					left := own.Err() != nil
					leave()
					switch {
					case err == nil && c.answer.Outcome != apply.OutcomeDone:
						t.Errorf("seed %d: a call ended without an answer", seed)
					case err != nil && (!left || ctx.Err() != nil):
						l.mu.Lock()
						t.Errorf("seed %d: a call hung or failed: %v (%d queued, slots free: %v, a route: %t, done: %d, turn: %d)",
							seed, err, len(l.queue), l.free, l.route != nil, len(c.done), len(c.turn))
						l.mu.Unlock()
						return
					}
				}
			})
		}
		callers.Wait()
		close(stop)
		routes.Wait()
		l.close(ErrClosed)
		l.left.Wait() // those who waited in the place of callers who left
		if err := l.do(ctx, &call{keys: [][]byte{nil}}); !errors.Is(err, ErrClosed) {
			t.Errorf("after close: %v", err)
		}
		cancel()
		if slots == 1 && !log.order {
			t.Errorf("seed %d: commands took effect out of order", seed)
		}
		if t.Failed() {
			return
		}
	}
}
