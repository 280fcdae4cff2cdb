package party

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// line is an inbox for pages. Iterators use it one after the other: to subscribe
// to a new one takes the server a good part of the time to the first key.
type line struct {
	inbox string
	sub   *nats.Subscription
	in    chan *nats.Msg
	walk  uint64 // counts the walks of all its iterators
}

// lines are those of a connection that no iterator uses.
type lines struct {
	sync.Mutex
	free []*line
}

const maxFreeLines = 16

// line returns an inbox for one iterator. It fails when the connection has ended.
func (r *remote) line() (*line, error) {
	r.lines.Lock()
	defer r.lines.Unlock()
	if n := len(r.lines.free); n > 0 {
		l := r.lines.free[n-1]
		r.lines.free = r.lines.free[:n-1]
		return l, nil
	}
	// There is room for the pages of two walks: when the first of the next one
	// arrives, none of those before are in it.
	l := &line{inbox: nats.NewInbox(), in: make(chan *nats.Msg, 2*window+2)}
	var err error
	l.sub, err = r.nc.ChanSubscribe(l.inbox, l.in)
	return l, err
}

// leave gives an inbox back. quiet: nothing is on its way to it, which would be
// kept until it is used again.
func (r *remote) leave(l *line, quiet bool) {
	r.lines.Lock()
	defer r.lines.Unlock()
	if quiet && len(r.lines.free) < maxFreeLines {
		r.lines.free = append(r.lines.free, l)
		return
	}
	_ = l.sub.Unsubscribe() // fails only with the connection
}
