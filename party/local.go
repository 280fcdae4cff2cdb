package party

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// local answers the reads of a handle that does not lead from a replica in its own
// process (Options.LocalReads). Where it cannot, while there is no replica yet or
// when one was given up, reads go to the leader, and no caller sees a difference.
//
// One goroutine, run, opens replicas and closes them. Readers share nothing that
// blocks: they load the pointer and pass the gate of what it points to.
type local struct {
	db      *DB
	serving atomic.Pointer[localReplica] // nil: reads go to the leader
	wake    chan struct{}                // capacity 1: run has something to do
	cancel  context.CancelFunc
	ended   chan struct{} // closed when run has ended

	mu      sync.Mutex
	dropped []*localReplica // to be closed by run
}

// localReplica is one use of a replica, for as long as it serves.
type localReplica struct {
	*replica
	gate *gate // passed by who reads
}

const (
	// localRetry is how long it takes until a replica that could not be opened is
	// tried again, at first and at most.
	localRetry    = 100 * time.Millisecond
	localRetryMax = 10 * time.Second
)

// newLocal begins to keep a replica, if the options want one.
func newLocal(db *DB) *local {
	lo := &local{db: db, wake: make(chan struct{}, 1), ended: make(chan struct{}), cancel: func() {}}
	if !db.opts.LocalReads {
		close(lo.ended)
		return lo
	}
	ctx, cancel := context.WithCancel(context.Background())
	lo.cancel = cancel
	go func() {
		defer close(lo.ended)
		lo.run(ctx)
	}()
	return lo
}

// close ends local reads.
func (lo *local) close() {
	lo.cancel()
	<-lo.ended
}

// run keeps a replica while the handle follows. One that serves is kept while
// there is no leader: it does not need any.
func (lo *local) run(ctx context.Context) {
	defer func() {
		lo.drop(lo.serving.Load())
		lo.closeDropped()
	}()
	failures := 0
	var retry <-chan time.Time
	for {
		lo.db.mu.Lock()
		role, changed := lo.db.mu.state.role, lo.db.mu.changed
		lo.db.mu.Unlock()
		cur := lo.serving.Load()
		switch {
		case role == Leading && cur != nil:
			lo.drop(cur) // it is not wrong: a handle that follows soon again may use it
		case role == Following && retry == nil && (cur == nil || cur.Tired()):
			if err := lo.renew(ctx, cur); err != nil && ctx.Err() == nil {
				lo.db.log.Warn("party: open a replica for local reads", "err", err)
				retry = time.After(min(localRetry<<min(failures, 10), localRetryMax))
				failures++
			} else {
				failures = 0
			}
		}
		lo.closeDropped()
		select {
		case <-changed:
		case <-lo.wake:
		case <-retry:
			retry = nil
		case <-ctx.Done():
			return
		}
	}
}

// renew lets a replica that is not worn serve in place of old, which serves until
// then.
func (lo *local) renew(ctx context.Context, old *localReplica) error {
	r, _, err := lo.db.replicas.use(ctx)
	if err != nil {
		return err
	}
	if err := r.Current(ctx); err != nil {
		lo.db.replicas.retire(r)
		lo.db.replicas.release(r)
		return err
	}
	if !lo.serving.CompareAndSwap(old, &localReplica{replica: r, gate: newGate()}) {
		// old was given up meanwhile.
		lo.serving.Store(&localReplica{replica: r, gate: newGate()})
		return nil
	}
	if old != nil {
		lo.put(old)
	}
	return nil
}

// drop lets lr serve no longer; run closes it.
func (lo *local) drop(lr *localReplica) {
	if lr != nil && lo.serving.CompareAndSwap(lr, nil) {
		lo.put(lr)
	}
}

// discard is drop for one that must not be used again.
func (lo *local) discard(lr *localReplica) {
	lo.db.replicas.retire(lr.replica)
	lo.drop(lr)
}

func (lo *local) put(lr *localReplica) {
	lo.mu.Lock()
	lo.dropped = append(lo.dropped, lr)
	lo.mu.Unlock()
	lo.nudge()
}

func (lo *local) nudge() {
	select {
	case lo.wake <- struct{}{}:
	default:
	}
}

// stuckFor is how long the readers of a replica whose Pebble broke have to leave it.
const stuckFor = time.Second

// closeDropped gives back what serves no longer, once its readers have left. It
// does not wait for good for one that is stuck in a Pebble that broke.
func (lo *local) closeDropped() {
	lo.mu.Lock()
	list := slices.Clone(lo.dropped)
	lo.dropped = nil
	lo.mu.Unlock()
	for _, lr := range list {
		empty := make(chan struct{})
		go func() {
			lr.gate.close()
			close(empty)
		}()
		select {
		case <-empty:
		case <-lr.Failed():
			select {
			case <-empty:
			case <-time.After(stuckFor):
				lo.db.log.Error("party: a reader is stuck in a broken replica")
				lo.db.replicas.abandon(lr.replica, empty)
				continue
			}
		}
		lo.db.replicas.release(lr.replica)
	}
}

// current returns the replica that serves, brought up to all that is committed,
// with its gate passed; nil: the leader has to be asked. The error is that of ctx.
func (lo *local) current(ctx context.Context) (*localReplica, error) {
	for {
		lr := lo.serving.Load()
		if lr == nil {
			return nil, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := lr.Current(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			lo.discard(lr)
			continue
		}
		if lr.Tired() {
			lo.nudge()
		}
		if lr.gate.enter() {
			return lr, nil
		}
		// It was replaced just now.
	}
}

// get answers a read of keys; ok is false if the leader has to be asked. A missing
// key is nil.
func (lo *local) get(ctx context.Context, keys ...[]byte) (values [][]byte, ok bool, err error) {
	lr, err := lo.current(ctx)
	if lr == nil {
		return nil, err != nil, err
	}
	defer lr.gate.exit()
	values = make([][]byte, len(keys))
	for i, k := range keys {
		v, err := lr.Get(nil, k)
		switch {
		case errors.Is(err, pebble.ErrNotFound):
		case errors.Is(err, apply.ErrInvalidCommand):
			return nil, true, wrapError(err)
		case err != nil:
			// A file of the copy is damaged, say. The leader has its own.
			lo.db.log.Warn("party: read from the replica of this process", "err", err)
			lo.discard(lr)
			return nil, false, nil
		case v == nil:
			values[i] = []byte{}
		default:
			values[i] = v
		}
	}
	return values, true, nil
}

// pin fixes a point in time for an iterator: the replica as it is now. ok is false
// if the leader has to be asked.
func (lo *local) pin(ctx context.Context, b snapshot.Bounds, at *snapshot.Position) (_ source, ok bool, err error) {
	lr, err := lo.current(ctx)
	if lr == nil {
		return nil, err != nil, err
	}
	defer lr.gate.exit()
	p := lo.db.replicas.lend(lr.replica) // the iterator may live longer than this replica serves
	err = lr.pins.pin(p, lr, b, lo.db.opts.Pebble.Comparer, at)
	switch {
	case err == nil:
		return p, true, nil
	case errors.Is(err, snapshot.ErrMalformed):
		return nil, true, wrapError(err)
	}
	lo.db.log.Warn("party: open an iterator on the replica of this process", "err", err)
	lo.discard(lr)
	return nil, false, nil
}

// status adds what a handle knows of its replica.
func (lo *local) status(st *Status) {
	if lr := lo.serving.Load(); lr != nil && st.Role != Leading {
		st.LocalReads, st.LocalApplied = true, lr.Applied()
	}
}
