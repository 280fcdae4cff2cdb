package party

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// subscriptions are those of one handle. They wait together: a follower has one
// request under way at the leader for all of them.
//
// There is no goroutine in it. Each that waits receives the answer right from the
// connection, whoever comes first, and hands the others their part.
type subscriptions struct {
	db *DB

	mu      sync.Mutex
	closed  bool
	all     map[*Subscription]bool
	waiting map[*Subscription]uint64 // at a leader in another process, for what is behind that number

	// Of the connection to the present leader.
	remote  *remote
	inbox   string
	notices chan *nats.Msg
	request *sharedWait // under way; nil: none, or answered
	id      uint64      // of the last request, over all connections
	// regulars waited when the last answer came, or have since. The next request is
	// for them: the first who comes back asks for all, but not for one that nobody
	// reads from any more.
	regulars map[*Subscription]bool
	patience time.Duration // with a request: twice the longest that a leader takes
}

// sharedWait is what subscriptions have asked for together.
type sharedWait struct {
	id      uint64
	after   uint64
	members map[*Subscription]bool
}

func newSubscriptions(db *DB) *subscriptions {
	return &subscriptions{
		db: db, all: make(map[*Subscription]bool), waiting: make(map[*Subscription]uint64),
		regulars: make(map[*Subscription]bool), patience: 2 * (noticeAfter + noticeAfter/2),
	}
}

// add takes s in; false: the handle is closed.
func (t *subscriptions) add(s *Subscription) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.all[s] = true
	}
	return !t.closed
}

func (t *subscriptions) remove(s *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, s)
	delete(t.regulars, s)
}

// close closes all of them and lets no new ones in.
func (t *subscriptions) close() {
	t.mu.Lock()
	t.closed = true
	open := make([]*Subscription, 0, len(t.all))
	for s := range t.all {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		_ = s.Close() // never fails
	}
}

// wait returns when there may be something for s behind after, up to where it has
// read, or when the role of the handle changes, or when an answer must have been
// lost; the notice is zero then.
func (t *subscriptions) wait(ctx context.Context, s *Subscription, after uint64) (notice, error) {
	db := t.db
	db.mu.Lock()
	role, changed := db.mu.state, db.mu.changed
	db.mu.Unlock()
	var notices <-chan *nats.Msg
	var lost <-chan time.Time
	switch {
	case role.leader != nil:
		who := waiter{here: s}
		role.leader.notifier.add(who, &wait{after: after, unacked: s.unacked(), ranges: rangesOf(s), tell: s.tell})
		defer role.leader.notifier.drop(who)
	case role.remote != nil:
		var err error
		if notices, err = t.join(role.remote, s, after); err != nil {
			return notice{}, err
		}
		defer t.leave(s)
		patience := time.NewTimer(t.patience)
		defer patience.Stop()
		lost = patience.C
	}
	for {
		select {
		case m := <-notices:
			if err := t.take(role.remote, m); err != nil {
				return notice{}, err
			}
		case n := <-s.told:
			return n, nil
		case <-lost:
			t.forget(role.remote)
			return notice{}, nil
		case <-changed:
			return notice{}, db.nobodyLeads()
		case <-s.done:
			return notice{}, ErrClosed
		case <-ctx.Done():
			return notice{}, ctx.Err()
		}
	}
}

// nobodyLeads is the reason why this process has no leader, nil if it has one or
// is looking.
func (db *DB) nobodyLeads() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.mu.state.err; err != nil {
		return fmt.Errorf("party: nobody leads %s: %w", db.dir, err)
	}
	return nil
}

// tell wakes s. What it was told before and has not looked at yet is as true, and
// it looks at the commit word itself, so one is enough.
func (s *Subscription) tell(n notice) {
	select {
	case s.told <- n:
	default:
	}
}

// join has s wait at the leader r, with a request of its own unless the one that
// is under way will do. It returns the channel that answers come by.
func (t *subscriptions) join(r *remote, s *Subscription, after uint64) (<-chan *nats.Msg, error) {
	t.mu.Lock()
	if t.remote != r {
		// A request has one answer, and there is never more than one not taken for
		// each of the last two requests: the channel does not fill.
		inbox, notices := nats.NewInbox(), make(chan *nats.Msg, 16)
		if _, err := r.nc.ChanSubscribe(inbox, notices); err != nil {
			t.mu.Unlock()
			r.cancel() // the connection has ended
			return nil, nil
		}
		t.remote, t.inbox, t.notices, t.request = r, inbox, notices, nil
	}
	for len(t.notices) > 0 { // an answer that came when nobody waited
		if err := t.takeLocked(r, <-t.notices); err != nil {
			t.mu.Unlock()
			return nil, err
		}
	}
	notices := t.notices
	t.waiting[s], t.regulars[s] = after, true
	if t.request != nil && t.request.members[s] && t.request.after <= after {
		t.mu.Unlock()
		return notices, nil
	}
	for _, a := range t.waiting {
		after = min(after, a) // the leader forgets the request that this one replaces
	}
	t.id++
	t.request = &sharedWait{id: t.id, after: after, members: make(map[*Subscription]bool, len(t.regulars))}
	ask := waitRequest{Origin: t.db.origin, ID: t.id, After: after}
	for member := range t.regulars {
		t.request.members[member] = true
		ask.Ranges = append(ask.Ranges, member.bounds)
	}
	if s := t.farthestBehind(); s != nil {
		ask.Unacked = s.unacked()
	}
	ask.bound()
	inbox := t.inbox
	t.mu.Unlock()
	if err := r.nc.PublishRequest(subjectAsk, inbox, ask.append(nil)); err != nil {
		r.cancel()
	}
	return notices, nil
}

// leave ends the waiting of s. The request stays; its answer will find who waits
// then.
func (t *subscriptions) leave(s *Subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, s)
}

// forget gives up the request at r, which has had no answer for so long that it, or
// the answer, was lost. Whoever waits next asks again.
func (t *subscriptions) forget(r *remote) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.remote == r {
		t.request = nil
	}
}

func (t *subscriptions) take(r *remote, m *nats.Msg) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.takeLocked(r, m)
}

// takeLocked hands an answer to those who wait. mu is held.
func (t *subscriptions) takeLocked(r *remote, m *nats.Msg) error {
	if noResponders(m) {
		r.cancel()
		return nil
	}
	id, n, err := decodeNotice(m.Data)
	if err != nil {
		return err
	}
	t.db.learn(n.Committed)
	if t.remote != r {
		// Somebody was slow to see that the connection has changed, and forgot this
		// request. Who waits for it looks for himself.
		for s := range t.waiting {
			s.tell(notice{Committed: n.Committed})
		}
		return nil
	}
	if t.request == nil || t.request.id != id {
		return nil // of a request that another one has replaced, which has its own answer
	}
	noter := t.farthestBehind()
	for s := range t.waiting {
		if t.request.members[s] {
			s.tell(notice{n.Through, n.Committed, n.Note && s == noter})
		}
	}
	t.request = nil
	clear(t.regulars)
	for s := range t.waiting {
		t.regulars[s] = true
	}
	return nil
}

// farthestBehind returns which of those that wait and owe no Ack has noted least
// of the log, nil if there are none. mu is held.
func (t *subscriptions) farthestBehind() (least *Subscription) {
	for s := range t.waiting {
		if u := s.unacked(); u > 0 && (least == nil || u < least.unacked()) {
			least = s
		}
	}
	return least
}

// rangesOf returns what s waits for in the form of a wait.
func rangesOf(s *Subscription) []bounds {
	if s.bounds.unbounded() {
		return nil
	}
	return []bounds{s.bounds}
}
