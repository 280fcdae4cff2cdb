package party

import "sync"

// eventQueue calls the user's functions, one at a time and in order, from a
// goroutine of its own, so that they can block nobody.
type eventQueue struct {
	fn   Events
	done chan struct{}

	mu     sync.Mutex
	cond   sync.Cond
	queue  []RoleChange
	closed bool
}

func newEventQueue(fn Events) *eventQueue {
	q := &eventQueue{fn: fn, done: make(chan struct{})}
	q.cond.L = &q.mu
	if fn.RoleChanged == nil {
		q.closed = true
		close(q.done)
		return q
	}
	go q.run()
	return q
}

func (q *eventQueue) post(c RoleChange) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.queue = append(q.queue, c)
		q.cond.Signal()
	}
}

func (q *eventQueue) run() {
	defer close(q.done)
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.queue) == 0 {
			if q.closed {
				return
			}
			q.cond.Wait()
		}
		c := q.queue[0]
		q.queue = q.queue[1:]
		q.mu.Unlock()
		q.fn.RoleChanged(c)
		q.mu.Lock()
	}
}

// close delivers what is queued and returns.
func (q *eventQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.cond.Signal()
	q.mu.Unlock()
	<-q.done
}
