package party

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// keepReplica is how long a replica is kept after the last snapshot on it was
// closed, for the next one.
const keepReplica = 10 * time.Second

// replicas are this handle's own copies of the state. All snapshots share the
// newest; an older one stays for as long as there are snapshots on it.
type replicas struct {
	db   *DB
	turn chan struct{} // capacity 1; full while somebody looks for the replica to use, or opens one

	checkpoint func(ctx context.Context, id string) (path string, err error) // what a replica begins with

	mu      sync.Mutex
	ended   sync.Cond // with mu: for close, somebody uses a replica less, or has closed it
	closed  bool
	all     map[*replica]struct{} // that are not closed yet
	current *replica              // nil: the next one who needs it opens it
	holders map[*Snapshot]struct{}
}

// replica is a copy with the number of its users.
type replica struct {
	*snapshot.Replica
	pins pins // of iterators that read it as it was when they were opened

	// Under replicas.mu.
	users     int         // zero and in replicas.all: it is being closed, or idle
	lent      int         // how many of them are iterators
	idle      *time.Timer // running while there are none
	abandoned bool        // close does not wait for it any more
}

func newReplicas(db *DB) *replicas {
	rs := &replicas{
		db: db, turn: make(chan struct{}, 1), checkpoint: db.getCheckpoint,
		all: make(map[*replica]struct{}), holders: make(map[*Snapshot]struct{}),
	}
	rs.ended.L = &rs.mu
	return rs
}

// viewTries is how many replicas are opened for one snapshot: one that writers
// outrun again and again is no use. Those that a new leader revoked do not count.
const viewTries = 3

// snapshot returns a Snapshot as of now.
func (rs *replicas) snapshot(ctx context.Context) (*Snapshot, error) {
	for try := 1; ; try++ {
		r, fresh, err := rs.use(ctx)
		if err != nil {
			return nil, err
		}
		view, err := r.View(ctx, rs.db.known.Load())
		if err == nil {
			return rs.hold(r, view)
		}
		if ctx.Err() == nil { // else nothing is wrong with it
			rs.retire(r)
		}
		rs.release(r)
		again := !fresh || errors.Is(err, eventlog.ErrCompacted)
		if ctx.Err() != nil || !errors.Is(err, snapshot.ErrRevoked) && (!again || try >= viewTries) {
			return nil, err
		}
	}
}

// use returns a replica that is not worn, opened now (fresh) if need be. The
// caller releases it.
func (rs *replicas) use(ctx context.Context) (r *replica, fresh bool, err error) {
	select {
	case rs.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { <-rs.turn }()
	r, err = rs.take()
	if err != nil {
		return nil, false, err
	}
	if r != nil && !r.Worn(ctx) {
		return r, false, nil
	}
	if r != nil {
		rs.retire(r)
		rs.release(r)
	}
	db := rs.db
	opened, err := snapshot.OpenReplica(ctx, snapshot.ReplicaOptions{
		Root: db.path("replicas"), Log: db.path("log"), Commit: db.path("commit"),
		Pebble: db.opts.Pebble, Checkpoint: rs.checkpoint, Logger: db.log,
	})
	if err != nil {
		return nil, false, err
	}
	r = &replica{Replica: opened, users: 1}
	rs.mu.Lock()
	rs.all[r] = struct{}{}
	rs.current = r
	rs.mu.Unlock()
	return r, true, nil
}

// take makes the caller a user of the current replica, if there is one.
func (rs *replicas) take() (*replica, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		return nil, ErrClosed
	}
	r := rs.current
	if r == nil {
		return nil, nil
	}
	r.users++
	if r.idle != nil {
		r.idle.Stop()
		r.idle = nil
	}
	return r, nil
}

// lend returns what an iterator over r becomes, which uses r until it is closed. The
// caller uses r too.
func (rs *replicas) lend(r *replica) *pinned {
	rs.mu.Lock()
	r.users++
	r.lent++
	rs.mu.Unlock()
	return &pinned{lent: true, over: ErrClosed, freed: func() {
		rs.mu.Lock()
		r.lent--
		closed := rs.closed
		rs.mu.Unlock()
		switch {
		case !rs.leave(r):
		case closed:
			rs.end(r) // nobody waits for it any more, and then nothing is left
		default:
			go rs.end(r) // to close an iterator does not block
		}
	}}
}

// retire makes r the current replica no longer.
func (rs *replicas) retire(r *replica) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.current == r {
		rs.current = nil
	}
}

// release ends one use of r. The last one closes it, if it is current after a
// while only.
func (rs *replicas) release(r *replica) {
	if rs.leave(r) {
		rs.end(r)
	}
}

// leave ends one use of r and tells whether the caller has to end r.
func (rs *replicas) leave(r *replica) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	defer rs.ended.Broadcast()
	r.users--
	if r.users > 0 {
		return false
	}
	if rs.current == r && !rs.closed {
		r.idle = time.AfterFunc(keepReplica, func() { rs.expire(r) })
		return false
	}
	if rs.current == r {
		rs.current = nil
	}
	return true
}

// expire closes r if nobody has used it for keepReplica.
func (rs *replicas) expire(r *replica) {
	rs.mu.Lock()
	if rs.current != r || r.users > 0 || r.idle == nil {
		rs.mu.Unlock()
		return
	}
	rs.current = nil
	rs.mu.Unlock()
	rs.end(r)
}

// abandon gives up a replica that somebody cannot leave, as its Pebble broke: a
// Pebble that is closed would end the process of who is in it. Its use goes on until
// left is closed, which may be never, and Close of the handle does not wait for that.
func (rs *replicas) abandon(r *replica, left <-chan struct{}) {
	rs.mu.Lock()
	if rs.current == r {
		rs.current = nil
	}
	r.abandoned = true
	rs.ended.Broadcast()
	rs.mu.Unlock()
	go func() {
		<-left
		rs.release(r)
	}()
}

// end closes r, which nobody has any more.
func (rs *replicas) end(r *replica) {
	if err := r.Close(); err != nil {
		rs.db.log.Warn("party: close a replica", "err", err)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.all, r)
	rs.ended.Broadcast()
}

// hold makes a Snapshot of a view of r, which it uses from now on.
func (rs *replicas) hold(r *replica, view *apply.View) (*Snapshot, error) {
	s := &Snapshot{replicas: rs, replica: r, view: view, cmp: rs.db.opts.Pebble.Comparer, gate: newGate()}
	rs.mu.Lock()
	if !rs.closed {
		rs.holders[s] = struct{}{}
		rs.mu.Unlock()
		return s, nil
	}
	rs.mu.Unlock()
	s.end()
	return nil, ErrClosed
}

// forget is called by a Snapshot that ends.
func (rs *replicas) forget(s *Snapshot) {
	rs.mu.Lock()
	delete(rs.holders, s)
	rs.mu.Unlock()
}

// close closes all snapshots, ends iterators, and closes the replicas but those that
// iterators look at: these are closed with the last of them. Nobody gets one any
// more: local has ended.
func (rs *replicas) close() {
	rs.mu.Lock()
	rs.closed = true
	holders := make([]*Snapshot, 0, len(rs.holders))
	for s := range rs.holders {
		holders = append(holders, s)
	}
	all := slices.Collect(maps.Keys(rs.all))
	rs.mu.Unlock()
	for _, r := range all {
		r.pins.close()
	}
	for _, s := range holders {
		_ = s.Close()
	}
	rs.turn <- struct{}{} // whoever opens a replica has done so, or has failed
	rs.mu.Lock()
	r := rs.current
	idle := r != nil && r.users == 0
	if idle {
		rs.current = nil
		r.idle.Stop()
	}
	rs.mu.Unlock()
	if idle {
		rs.end(r)
	}
	rs.mu.Lock()
	for rs.busy() {
		rs.ended.Wait()
	}
	rs.mu.Unlock()
	<-rs.turn
}

// busy tells whether there is a replica that others than iterators use, or that is
// being closed, and that was not given up. mu is held.
func (rs *replicas) busy() bool {
	for r := range rs.all {
		if !r.abandoned && (r.users == 0 || r.users > r.lent) {
			return true
		}
	}
	return false
}
