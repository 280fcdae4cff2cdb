package party

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	// wake carries answered, once and last. Before that perhaps a slot: it is the caller's turn
	// to send what has queued up, in that. Only who is in the queue and no sender is given one,
	// so it never holds more than two.
	wake chan int

	// Set by whoever completes the call, before it sends answered.
	answer apply.Answer
	values [][]byte
	err    error
	// Set by whoever has the bundle, for a read that was not answered to the end.
	missing []int // keys to ask for again
	again   bool  // there are such keys
	large   bool  // a large value is among them

	// Under lane.mu.
	gone   bool  // the caller has left, so it is not sent again
	sender bool  // the caller has a slot: it sends a bundle, its own or another
	trip   *trip // the call is answered, and the caller is to count itself as it wakes; set before answered is sent
}

// answered is sent to calls that have their answer.
const answered = -1

// wakes has channels for call.wake that were emptied by receiving answered. To that of a caller
// that left before, somebody may still send.
var wakes = sync.Pool{New: func() any { return make(chan int, 2) }}

// trip is one bundle under way, and the slot that it has. When it is answered, the
// last of its callers to wake passes the slot on: by then the others are back with
// their next calls, and the next bundle takes those too. Passed on at once, it would
// leave with the first of them. Callers that have other work to do in between are
// not waited for: whoever calls when the trip's own time has passed again takes the slot.
type trip struct {
	slot   int
	route  route
	bundle []*call
	own    *call // of the one who sends; nil if that one has left
	sent   time.Time

	left  atomic.Int32 // callers that have not woken
	until time.Time    // when that is no longer waited for
}

// lane sends calls in bundles: while as many bundles as it has slots are under
// way, calls queue up; the next bundle takes all of them. There is no goroutine
// of its own: the caller that finds a free slot sends its own call, and waits
// for the reply; then, when those who were answered have called again (see trip), the
// next in line sends what has queued up. With one caller that is the shortest path
// there is, with many a group commit.
//
// A bundle whose route is lost goes back to the front of the queue and waits
// for the next route.
type lane struct {
	noRetry bool

	left sync.WaitGroup // goroutines that wait in the place of callers who left

	mu     sync.Mutex
	route  route
	queue  []*call
	free   []int   // slots
	ended  []*trip // answered ones whose slots wait for the callers
	next   uint64
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
	c.wake = wakes.Get().(chan int)
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
	slot, ok := 0, false
	if l.route != nil {
		slot, ok = l.take()
	}
	c.sender = ok
	l.mu.Unlock()
	if !ok {
		return l.await(ctx, c)
	}
	return l.combine(ctx, slot, c)
}

// take takes a slot that is free, or that has waited for its callers for long enough.
// mu is held.
func (l *lane) take() (slot int, ok bool) {
	if k := len(l.free) - 1; k >= 0 {
		slot = l.free[k]
		l.free = l.free[:k]
		return slot, true
	}
	if len(l.ended) == 0 {
		return 0, false
	}
	now := time.Now()
	i := slices.IndexFunc(l.ended, func(t *trip) bool { return now.After(t.until) })
	if i < 0 {
		return 0, false
	}
	slot = l.ended[i].slot
	l.ended = slices.Delete(l.ended, i, i+1)
	return slot, true
}

// woken passes on the slot of a trip whose callers have all woken, unless somebody
// has taken it. mu is held.
func (l *lane) woken(t *trip) {
	if i := slices.Index(l.ended, t); i >= 0 {
		l.ended = slices.Delete(l.ended, i, i+1)
		l.release(t.slot)
	}
}

// await waits until c has its answer or it is its turn to send.
func (l *lane) await(ctx context.Context, c *call) error {
	select {
	case slot := <-c.wake:
		if slot != answered && !l.decline(c, slot) {
			return l.combine(ctx, slot, c)
		}
		if t := c.trip; t != nil && t.left.Add(-1) == 0 {
			l.mu.Lock()
			l.woken(t)
			l.mu.Unlock()
		}
		wakes.Put(c.wake)
		return c.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	c.gone = true
	t := c.trip
	if t != nil && t.left.Add(-1) == 0 {
		l.woken(t)
	}
	for i, q := range l.queue {
		if q == c {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			break
		}
	}
	l.mu.Unlock()
	for { // c is not in the queue, so it is given no more turns
		select {
		case slot := <-c.wake:
			if slot == answered {
				return c.err
			}
			l.mu.Lock()
			l.release(slot)
			l.mu.Unlock()
		default:
			if t == nil {
				return ctx.Err()
			}
			<-c.wake // it is answered, just now
			return c.err
		}
	}
}

// decline passes on c's turn and returns true if c is answered, and so does not need it.
func (l *lane) decline(c *call, slot int) bool {
	select {
	case <-c.wake: // answered: c has one turn at a time
		l.mu.Lock()
		l.release(slot)
		l.mu.Unlock()
		return true
	default:
		return false
	}
}

// combine sends what is queued, waits for the answers, hands them out, and
// passes the slot on. It returns when c has its answer.
func (l *lane) combine(ctx context.Context, slot int, c *call) error {
	l.mu.Lock()
	t := &trip{slot: slot, route: l.route, bundle: l.pack(), own: c}
	if t.route == nil || len(t.bundle) == 0 {
		l.queue = append(t.bundle, l.queue...)
		c.sender = false
		l.release(slot)
		l.mu.Unlock()
		return l.await(ctx, c)
	}
	l.mu.Unlock()

	t.sent = time.Now()
	t.route.send(slot, t.bundle)
	err := t.route.wait(ctx, slot, t.bundle)
	if errors.Is(err, errLeft) {
		// This caller leaves; the others of its bundle still want their answers.
		t.own = nil
		l.left.Go(func() { l.settle(t, t.route.wait(context.Background(), slot, t.bundle)) })
		return l.await(ctx, c)
	}
	l.settle(t, err)
	return l.await(ctx, c)
}

// settle hands out what became of a bundle and passes the slot on, or leaves that to
// the callers.
func (l *lane) settle(t *trip, err error) {
	if errors.Is(err, errLost) {
		l.lose(t)
		return
	}
	var rest []*call
	over := t.bundle[:0]
	for _, c := range t.bundle {
		if err == nil && c.again {
			rest = append(rest, c)
			continue
		}
		if err != nil {
			c.err = err
		}
		over = append(over, c)
	}
	l.mu.Lock()
	if t.own != nil {
		t.own.sender = false
	}
	l.requeue(rest, false)
	if !l.leave(t, over) {
		l.release(t.slot)
	}
	l.mu.Unlock()
	for _, c := range over {
		c.wake <- answered
	}
}

// leave has the callers of an answered bundle pass its slot on. It returns false if
// there is none who could: the one who sent it needs no waking, and one who sends
// another may have to wait for that. mu is held.
func (l *lane) leave(t *trip, over []*call) bool {
	n := int32(0)
	for _, c := range over {
		if c != t.own && !c.gone && !c.sender {
			c.trip = t
			n++
		}
	}
	if n == 0 {
		return false
	}
	t.left.Store(n)
	now := time.Now()
	t.until = now.Add(now.Sub(t.sent))
	l.ended = append(l.ended, t)
	return true
}

// lose puts a bundle whose route is lost back to the front of the queue.
func (l *lane) lose(t *trip) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.route == t.route {
		l.route = nil
	}
	if t.own != nil {
		t.own.sender = false
	}
	l.requeue(t.bundle, true)
	l.release(t.slot)
}

func (c *call) fail(err error) {
	c.err = err
	c.wake <- answered
}

// release gives the slot to the first in line who has none, or frees it. mu is held.
func (l *lane) release(slot int) {
	if l.route != nil {
		for _, c := range l.queue {
			if !c.sender {
				c.sender = true
				c.wake <- slot
				return
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
		slot, _ := l.take()
		l.release(slot)
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
