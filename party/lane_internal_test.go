package party

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
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
	refused [4]bool          // with an error for all of it
}

var errRefused = errors.New("refused")

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
	r.refused[slot] = fate == 2
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
	answered, refused := r.pending[slot], r.refused[slot]
	r.mu.Unlock()
	select {
	case <-answered:
		if refused {
			return errRefused
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range bundle {
			c.answer = apply.Answer{Outcome: apply.OutcomeDone, Seq: 1}
			c.again = c.cmd == nil && r.rng.IntN(10) == 0
		}
		return nil
	case <-ctx.Done():
		return errLeft
	case <-r.lost:
		return errLost
	}
}

// TestLane_RandomHistories: routes come and go, callers leave; each call ends
// once, none is left behind, no slot is lost, effects are in the order of the numbers.
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
					case errors.Is(err, errRefused):
					case err == nil && c.answer.Outcome != apply.OutcomeDone:
						t.Errorf("seed %d: a call ended without an answer", seed)
					case err != nil && (!left || ctx.Err() != nil):
						l.mu.Lock()
						t.Errorf("seed %d: a call hung or failed: %v (%d queued, slots free: %v, a route: %t, to wake for: %d)",
							seed, err, len(l.queue), l.free, l.route != nil, len(c.wake))
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
		if slices.Sort(l.free); !slices.Equal(l.free, []int{0, 1, 2, 3}[:slots]) || len(l.ended) > 0 {
			t.Errorf("seed %d: slots %v are free in the end, and %d wait", seed, l.free, len(l.ended))
		}
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

// TestLane_PassesTheSlotOnWhenTheLastHasWoken: not before, or every other bundle
// would be small; and not never, when some of the callers have left or are at work
// on another bundle.
func TestLane_PassesTheSlotOnWhenTheLastHasWoken(t *testing.T) {
	ctx := t.Context()
	left, leave := context.WithCancel(ctx)
	leave()
	calls := func(n int) (cs []*call) {
		for range n {
			cs = append(cs, &call{wake: make(chan int, 2)})
		}
		return cs
	}
	l := newLane(1, false)
	isFree := func(want bool, when string) {
		t.Helper()
		if got := len(l.free) == 1 && len(l.ended) == 0; got != want {
			t.Errorf("%s the slot is free: %t", when, got)
		}
	}
	// answer settles a bundle that was on its way for that long.
	answer := func(own *call, bundle []*call, took time.Duration) {
		l = newLane(1, false)
		l.take()
		l.settle(&trip{bundle: bundle, own: own, sent: time.Now().Add(-took)}, nil)
	}
	wake := func(ctx context.Context, c *call) {
		t.Helper()
		if err := l.await(ctx, c); err != nil {
			t.Error(err)
		}
	}
	cs := calls(5)
	own, wakes, leaves, sends, gone := cs[0], cs[1], cs[2], cs[3], cs[4]
	own.sender, sends.sender, gone.gone = true, true, true
	answer(own, cs, time.Hour)
	wake(ctx, own)
	isFree(false, "before anybody wakes")
	wake(ctx, wakes)
	isFree(false, "before the last wakes")
	if _, ok := l.take(); ok {
		t.Error("a slot was taken that waits for its callers")
	}
	wake(left, leaves) // it is answered, although its context has ended
	isFree(true, "after the last has left")
	wake(ctx, sends)

	answer(nil, calls(1), time.Hour)
	isFree(false, "before the only one wakes")
	cs = calls(1)
	answer(cs[0], cs, time.Hour)
	isFree(true, "with one caller, at once,")

	// One that does not come is not waited for.
	cs = calls(1)
	answer(nil, cs, 0)
	<-time.After(time.Millisecond)
	if slot, ok := l.take(); !ok || slot != 0 {
		t.Errorf("took slot %d: %t", slot, ok)
	}
	wake(ctx, cs[0])
	isFree(false, "when it has been taken")

	// Nor does one bundle that took long keep the slot of another.
	l = newLane(2, false)
	l.take()
	l.take()
	l.settle(&trip{slot: 0, bundle: calls(1), sent: time.Now().Add(-time.Hour)}, nil)
	l.settle(&trip{slot: 1, bundle: calls(1), sent: time.Now()}, nil)
	<-time.After(time.Millisecond)
	if slot, ok := l.take(); !ok || slot != 1 || len(l.ended) != 1 {
		t.Errorf("took slot %d: %t, and %d wait", slot, ok, len(l.ended))
	}
}

// atOnce is a route that answers everything, and notes whether who sends is known to.
type atOnce struct{ known bool }

func (r *atOnce) send(_ int, bundle []*call)             { r.known = bundle[0].sender }
func (*atOnce) wait(context.Context, int, []*call) error { return nil }

// until waits until what is under the lock of l is so.
func (l *lane) until(is func() bool) {
	for so := false; !so; runtime.Gosched() {
		l.mu.Lock()
		so = is()
		l.mu.Unlock()
	}
}

// TestLane_KnowsItsSenders: a caller with a slot may be waiting for a slow bundle when
// its own call is answered with another; no slot must wait for it.
func TestLane_KnowsItsSenders(t *testing.T) {
	l := newLane(1, false)
	r := &atOnce{}
	l.setRoute(r)
	c := &call{}
	if err := l.do(t.Context(), c); err != nil || !r.known || c.sender {
		t.Errorf("took the free slot: sender %t, then %t, %v", r.known, c.sender, err)
	}
	l.setRoute(nil)
	r.known = false
	c = &call{}
	ended := make(chan error)
	go func() { ended <- l.do(t.Context(), c) }()
	l.until(func() bool { return len(l.queue) == 1 })
	l.setRoute(r)
	if err := <-ended; err != nil || !r.known || c.sender {
		t.Errorf("was given the slot: sender %t, then %t, %v", r.known, c.sender, err)
	}
	// The route is gone before it can send: it gets another slot when there is a route.
	l.setRoute(nil)
	c = &call{wake: make(chan int, 2), sender: true}
	l.queue = append(l.queue, c)
	slot, _ := l.take()
	go func() { ended <- l.combine(t.Context(), slot, c) }()
	l.until(func() bool { return len(l.free) == 1 })
	l.setRoute(r)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLane_AnsweredIsAnswered: whoever leaves when the answer is already on its way
// to the caller gets it, and not the end of the context.
func TestLane_AnsweredIsAnswered(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	leave()
	l := newLane(1, false)
	on := &trip{}
	on.left.Store(2)
	c := &call{wake: make(chan int, 2), trip: on}
	ended := make(chan error)
	go func() { ended <- l.await(ctx, c) }()
	l.until(func() bool { return c.gone })
	c.wake <- answered
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLane_NoRetry: a call whose route is lost fails; a read of which only a part was
// answered is no retry, and goes on.
func TestLane_NoRetry(t *testing.T) {
	l := newLane(1, true)
	part := &call{again: true, wake: make(chan int, 2)}
	l.take()
	l.settle(&trip{bundle: []*call{part}}, nil)
	if len(l.queue) != 1 || l.queue[0] != part || part.err != nil || part.again {
		t.Fatalf("queue %v, error %v, again %t", l.queue, part.err, part.again)
	}
	l.take()
	l.settle(&trip{bundle: l.pack()}, errLost)
	if err := l.await(t.Context(), part); !errors.Is(err, ErrLeaderLost) || len(l.queue) > 0 {
		t.Errorf("%v, queue %v", err, l.queue)
	}
}
