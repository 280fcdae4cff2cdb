package snapshot

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// ErrBehind: the log has so much that the replica lacks that a new one is cheaper
// than to follow.
var ErrBehind = errors.New("snapshot: replica is far behind")

// Current brings the replica up to everything that anybody was told of before the
// call, so that a Get after it is linearizable. If nothing is missing, that costs
// three atomic loads; readers share no lock. Otherwise it reads the log, at most
// until ctx ends.
//
// The error is that of ctx, ErrRevoked, ErrBehind, ErrReplicaClosed, or why the
// replica cannot follow the log any more. Only after that of ctx may it be used on.
func (r *Replica) Current(ctx context.Context) error {
	var upTo uint64
	w := r.live.Load()
	if w != nil {
		upTo = w.Committed()
		// No write was acknowledged that the word does not count, unless the replica
		// had been revoked before: both are loaded after the call began.
		if r.isRevoked() {
			return ErrRevoked
		}
		if upTo <= r.machine.Applied() {
			return nil
		}
	}
	if err := r.take(ctx); err != nil {
		return err
	}
	if w != nil && upTo <= r.machine.Applied() { // whoever had the turn before has followed
		r.turn <- struct{}{}
		return nil
	}
	done := make(chan error, 1)
	go func() { // as in View
		err := r.late(upTo)
		if err == nil {
			err = r.follow(0)
		}
		r.turn <- struct{}{}
		done <- err
	}()
	if mutant.StaleLocalRead {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.machine.Failed():
		return r.machine.Err()
	}
}

// late tells whether the log up to upTo is more than a replica should follow. The
// caller has the turn.
func (r *Replica) late(upTo uint64) error {
	if r.failed != nil || upTo < r.machine.Applied()+near {
		return nil
	}
	behind, err := r.reader.Behind()
	if err == nil && behind > wear {
		err = ErrBehind
	}
	return err
}

// Get appends the value of key, as the replica has it, to dst. Reserved keys are
// absent. The error is pebble.ErrNotFound for an absent key. It must not be called
// beside Close, nor after it.
func (r *Replica) Get(dst, key []byte) ([]byte, error) { return r.machine.Get(dst, key) }

// NewIter returns an iterator over the replica as it is now, for NewIter of this
// package. It must not be called beside Close, nor after it, and is closed before.
func (r *Replica) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	return r.machine.NewIter(o)
}

// Tired tells that the replica has applied so much log that it should be replaced
// by a new one. It may be used until that is there.
func (r *Replica) Tired() bool { return r.tired.Load() }

// Failed is closed when the replica's Pebble broke in a way it does not recover
// from: a Get may never return then.
func (r *Replica) Failed() <-chan struct{} { return r.machine.Failed() }
