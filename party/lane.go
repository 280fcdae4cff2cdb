package party

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/pebbleparty/pebbleparty/apply"
)

// errLost: the route is gone; what was sent over it may have been handled or
// not. It never reaches a caller.
var errLost = errors.New("party: route lost")

// errLeft: the context of the caller that waits for a bundle has ended. The
// answers are still to come; somebody else has to wait for them.
var errLeft = errors.New("party: caller left")

// route is where calls go in the present role: the sequencer and the state of
// this process, or the connection to another.
type route interface {
	// send begins to have a bundle answered. slot is free: its last bundle was
	// waited for.
	send(slot int, bundle []*call)
	// wait returns once every call of the bundle has its answer, or with an error
	// that is the answer of all, or errLost. With errLeft, ctx ended first, and it
	// has to be called again.
	wait(ctx context.Context, slot int, bundle []*call) error
}

// call is one operation that waits for its answer.
type call struct {
	cmd  *apply.Command // a write, or
	keys [][]byte       // a read
	size int            // about how many bytes it takes in a message

	done chan struct{} // capacity 1: the answer is there
	turn chan int      // capacity 1: it is this caller's turn to send what has queued up, in that slot

	// Set by whoever completes the call, before done.
	answer apply.Answer
	values [][]byte
	err    error
	// Set by whoever has the bundle, for a read that was not answered to the end.
	missing []int // keys to ask for again
	again   bool  // there are such keys
	large   bool  // a large value is among them

	gone bool // under lane.mu: the caller has left, so it is not sent again
}

// Bounds of one bundle. One call may be larger by itself.
const (
	bundleBytes = 1 << 20
	bundleCalls = 1024
)

// lane sends calls in bundles: while as many bundles as it has slots are under
// way, calls queue up; the next bundle takes all of them. There is no goroutine
// of its own: the caller that finds a free slot sends its own call, and waits
// for the reply; then the next in line sends what has queued up meanwhile. With
// one caller that is the shortest path there is, with many a group commit.
//
// A bundle whose route is lost goes back to the front of the queue and waits
// for the next route.
type lane struct {
	noRetry bool

	left sync.WaitGroup // goroutines that wait in the place of callers who left

	mu     sync.Mutex
	route  route
	queue  []*call
	free   []int // slots
	next   uint64
	last   int  // calls in the newest bundle
	larges bool // there may be calls for large values in queue
	closed error
}

func newLane(slots int, noRetry bool) *lane {
	l := &lane{noRetry: noRetry, next: 1}
	for i := range slots {
		l.free = append(l.free, i)
	}
	return l
}

// do queues c and returns when it has its answer, in c, or when ctx ends or the
// lane is closed. After that c belongs to the lane.
func (l *lane) do(ctx context.Context, c *call) error {
	c.done, c.turn = make(chan struct{}, 1), make(chan int, 1)
	l.mu.Lock()
	if l.closed != nil {
		l.mu.Unlock()
		return l.closed
	}
	if err := ctx.Err(); err != nil {
		l.mu.Unlock()
		return err
	}
	if c.cmd != nil {
		c.cmd.Number = l.next
		l.next++
	}
	l.queue = append(l.queue, c)
	if l.route == nil || len(l.free) == 0 {
		l.mu.Unlock()
		return l.await(ctx, c)
	}
	slot := l.take()
	l.mu.Unlock()
	return l.combine(ctx, slot, c)
}

// take takes a free slot. mu is held, and there is one.
func (l *lane) take() int {
	k := len(l.free) - 1
	slot := l.free[k]
	l.free = l.free[:k]
	return slot
}

// await waits until c has its answer or it is its turn to send.
func (l *lane) await(ctx context.Context, c *call) error {
	select {
	case <-c.done:
		l.decline(c)
		return c.err
	case slot := <-c.turn:
		return l.combine(ctx, slot, c)
	case <-ctx.Done():
	}
	l.mu.Lock()
	c.gone = true
	for i, q := range l.queue {
		if q == c {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			break
		}
	}
	l.mu.Unlock()
	l.decline(c)
	select {
	case <-c.done:
		return c.err
	default:
		return ctx.Err()
	}
}

// decline passes on a turn that c was given and does not need any more. c is
// not in the queue, so it gets no other.
func (l *lane) decline(c *call) {
	select {
	case slot := <-c.turn:
		l.mu.Lock()
		l.release(slot)
		l.mu.Unlock()
	default:
	}
}

// combine sends what is queued, waits for the answers, hands them out, and
// passes the slot on. It returns when c has its answer.
func (l *lane) combine(ctx context.Context, slot int, c *call) error {
	l.gather()
	l.mu.Lock()
	bundle := l.pack()
	r := l.route
	if r == nil || len(bundle) == 0 {
		l.queue = append(bundle, l.queue...)
		l.release(slot)
		l.mu.Unlock()
		return l.await(ctx, c)
	}
	l.mu.Unlock()

	r.send(slot, bundle)
	err := r.wait(ctx, slot, bundle)
	if errors.Is(err, errLeft) {
		// This caller leaves; the others of its bundle still want their answers.
		l.left.Go(func() { l.settle(slot, r, bundle, r.wait(context.Background(), slot, bundle)) })
		return l.await(ctx, c)
	}
	l.settle(slot, r, bundle, err)
	return l.await(ctx, c)
}

// gather lets callers that the last bundle has just released queue up again.
// Without it the first of them leaves alone and every other bundle is small.
func (l *lane) gather() {
	l.mu.Lock()
	busy := l.last > 1
	l.mu.Unlock()
	if busy {
		runtime.Gosched()
		runtime.Gosched()
	}
}

// pack takes the next bundle off the queue. mu is held.
func (l *lane) pack() []*call {
	if l.larges {
		return l.packMixed()
	}
	n, bytes := 0, 0
	for n < len(l.queue) && n < bundleCalls && (n == 0 || bytes+l.queue[n].size <= bundleBytes) {
		bytes += l.queue[n].size
		n++
	}
	bundle := l.queue[:n:n]
	l.queue = l.queue[n:]
	if len(l.queue) == 0 {
		l.queue = nil // the bundle keeps the array
	}
	l.last = n
	return bundle
}

// packMixed is pack while there are calls for large values: it takes one of them
// at a time, past which the others go. mu is held.
func (l *lane) packMixed() []*call {
	var bundle, rest []*call
	large, bytes := 0, 0
	for _, c := range l.queue {
		fits := len(bundle) < bundleCalls && (len(bundle) == 0 || bytes+c.size <= bundleBytes)
		if c.large {
			large++
		}
		if !fits || c.large && large > 1 {
			rest = append(rest, c)
			continue
		}
		bytes += c.size
		bundle = append(bundle, c)
	}
	l.queue, l.larges, l.last = rest, large > 1, len(bundle)
	return bundle
}

// settle hands out what became of a bundle and passes the slot on.
func (l *lane) settle(slot int, r route, bundle []*call, err error) {
	if !errors.Is(err, errLost) {
		var rest []*call
		for _, c := range bundle {
			if err == nil && c.again {
				rest = append(rest, c)
				continue
			}
			if err != nil {
				c.err = err
			}
			c.done <- struct{}{}
		}
		l.mu.Lock()
		l.resume(rest)
		l.release(slot)
		l.mu.Unlock()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.route == r {
		l.route = nil
	}
	again := make([]*call, 0, len(bundle)+len(l.queue))
	for _, c := range bundle {
		switch {
		case c.gone:
		case l.closed != nil:
			c.fail(l.closed)
		case l.noRetry:
			c.fail(ErrLeaderLost)
		default:
			if c.cmd != nil {
				c.cmd.Retry = true
			}
			c.err, c.again = nil, false
			l.larges = l.larges || c.large
			again = append(again, c)
		}
	}
	l.queue = append(again, l.queue...)
	l.release(slot)
}

// resume puts reads that were not answered to the end back to the front of the
// queue. mu is held.
func (l *lane) resume(bundle []*call) {
	if len(bundle) == 0 {
		return
	}
	rest := make([]*call, 0, len(bundle)+len(l.queue))
	for _, c := range bundle {
		c.again = false
		switch {
		case c.gone:
		case l.closed != nil:
			c.fail(l.closed)
		default:
			l.larges = l.larges || c.large
			rest = append(rest, c)
		}
	}
	l.queue = append(rest, l.queue...)
}

func (c *call) fail(err error) {
	c.err = err
	c.done <- struct{}{}
}

// release gives the slot to the first in line, or frees it. mu is held.
func (l *lane) release(slot int) {
	if l.route != nil && len(l.queue) > 0 {
		for _, c := range l.queue {
			select {
			case c.turn <- slot:
				return
			default: // it was given another one already
			}
		}
	}
	l.free = append(l.free, slot)
}

// setRoute says where calls go from now on; nil: nowhere, they wait.
func (l *lane) setRoute(r route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.route = r
	if r == nil {
		return
	}
	for n := min(len(l.free), len(l.queue)); n > 0; n-- {
		l.release(l.take())
	}
}

// failQueued ends all calls that wait.
func (l *lane) failQueued(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(err)
}

func (l *lane) failLocked(err error) {
	for _, c := range l.queue {
		if c.cmd != nil && c.cmd.Retry {
			// The leader that it was sent to may have logged it.
			c.fail(fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
			continue
		}
		c.fail(err)
	}
	l.queue = nil
}

// close ends all calls that wait, and those that come, with err. Calls under way
// end with the route that they are on; left is for waiting until they have.
func (l *lane) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = err
	l.route = nil
	l.failLocked(err)
}
