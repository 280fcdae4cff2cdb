package party

import (
	"context"
	"errors"
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
	turn chan struct{}  // capacity 1; full while somebody looks for the replica to use, or opens one
	open sync.WaitGroup // replicas that are not closed yet

	mu      sync.Mutex
	closed  bool
	current *replica // nil: the next one who needs it opens it
	holders map[*Snapshot]struct{}
}

// replica is a copy with the number of its users.
type replica struct {
	*snapshot.Replica
	// Under replicas.mu.
	users     int
	idle      *time.Timer // running while there are none
	abandoned bool        // replicas does not wait for it any more
}

func newReplicas(db *DB) *replicas {
	return &replicas{db: db, turn: make(chan struct{}, 1), holders: make(map[*Snapshot]struct{})}
}

// viewTries is how many replicas are opened for one snapshot: one that writers
// outrun again and again is no use.
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
		if ctx.Err() != nil || fresh && !errors.Is(err, eventlog.ErrCompacted) || try == viewTries {
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
		Pebble: db.opts.Pebble, Checkpoint: db.getCheckpoint, Logger: db.log,
	})
	if err != nil {
		return nil, false, err
	}
	r = &replica{Replica: opened, users: 1}
	rs.mu.Lock()
	rs.open.Add(1) // before close, which takes the turn, waits
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

// share adds a user of r, for one who has it.
func (rs *replicas) share(r *replica) {
	rs.mu.Lock()
	r.users++
	rs.mu.Unlock()
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
	rs.mu.Lock()
	r.users--
	if r.users > 0 {
		rs.mu.Unlock()
		return
	}
	if rs.current == r && !rs.closed {
		r.idle = time.AfterFunc(keepReplica, func() { rs.expire(r) })
		rs.mu.Unlock()
		return
	}
	if rs.current == r {
		rs.current = nil
	}
	rs.mu.Unlock()
	rs.end(r)
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
	if !r.abandoned { // by an earlier use of it
		r.abandoned = true
		rs.open.Done()
	}
	rs.mu.Unlock()
	go func() {
		<-left
		rs.release(r)
	}()
}

// end closes r, which nobody has any more.
func (rs *replicas) end(r *replica) {
	if !r.abandoned { // nobody else has it
		defer rs.open.Done()
	}
	if err := r.Close(); err != nil {
		rs.db.log.Warn("party: close a replica", "err", err)
	}
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
	return nil, errors.Join(ErrClosed, s.end())
}

// forget is called by a Snapshot that ends.
func (rs *replicas) forget(s *Snapshot) {
	rs.mu.Lock()
	delete(rs.holders, s)
	rs.mu.Unlock()
}

// close closes all snapshots and replicas. Nobody gets one any more.
func (rs *replicas) close() {
	rs.mu.Lock()
	rs.closed = true
	holders := make([]*Snapshot, 0, len(rs.holders))
	for s := range rs.holders {
		holders = append(holders, s)
	}
	rs.mu.Unlock()
	for _, s := range holders {
		if err := s.Close(); err != nil {
			rs.db.log.Warn("party: close a snapshot", "err", err)
		}
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
	rs.open.Wait()
	<-rs.turn
}
