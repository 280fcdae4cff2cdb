package party

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
)

// WatchOptions say which keys a Watcher is about. The zero value, and nil: all.
type WatchOptions struct {
	// LowerBound (inclusive) and UpperBound (exclusive), in the order of the
	// database's comparer; empty means no bound.
	LowerBound, UpperBound []byte
}

// Watcher gives the keys of a range as they are at one sequence number, and then
// everything that changes in it, from the next number on: nothing is missing
// between the two and nothing comes twice. It is for who keeps a copy of his
// own: a cache, an index, a view.
//
// Next and All are for one goroutine at a time; Close may be called from any.
type Watcher struct {
	// Immutable.
	changes *Subscription
	seq     uint64 // of the initial keys
	cancel  context.CancelFunc

	turn sync.Mutex // of the goroutine in Next
	// Under turn.
	snapshot *Snapshot // nil behind the last initial key
	keys     *Iterator
	started  bool
}

// Change is what a Watcher gives. It belongs to the caller.
type Change struct {
	Kind ChangeKind
	// Seq of ChangeKey and ChangeReady is that of the initial state, that of
	// ChangeEvent that of the event.
	Seq        uint64
	Key, Value []byte // of ChangeKey
	Event      Event  // of ChangeEvent
}

// ChangeKind says what a Change is.
type ChangeKind uint8

const (
	// ChangeKey is a key that is there at the beginning, with its value. They come
	// first, in the order of the comparer.
	ChangeKey ChangeKind = iota + 1
	// ChangeReady comes once, behind the last of them: the state is complete as of
	// Seq.
	ChangeReady
	// ChangeEvent is an event, as a Subscription gives it: what one batch did in
	// the range. One OpMerge is only an operand; the Merger of the database makes
	// a value of it.
	ChangeEvent
)

// String returns the kind in lower case.
func (k ChangeKind) String() string {
	switch k {
	case ChangeKey:
		return "key"
	case ChangeReady:
		return "ready"
	case ChangeEvent:
		return "event"
	}
	return "unknown"
}

// Watch begins with the database as of a moment between call and return, see
// NewSnapshot for what that costs until the last initial key was read. ctx is for
// the call only. The bounds are copied. The caller must Close the Watcher.
//
// The errors are those of NewSnapshot and Subscribe.
func (db *DB) Watch(ctx context.Context, o *WatchOptions) (*Watcher, error) {
	if o == nil {
		o = &WatchOptions{}
	}
	b := bounds{cloneBytes(o.LowerBound), cloneBytes(o.UpperBound)}
	if len(b.lower) == 0 {
		b.lower = nil // to an iterator, empty is a key
	}
	if len(b.upper) == 0 {
		b.upper = nil
	}
	if err := b.check(db.opts.Pebble.Comparer); err != nil {
		return nil, fmt.Errorf("party: watch: %w", err)
	}
	for {
		snap, err := db.NewSnapshot(ctx)
		if err != nil {
			return nil, err
		}
		w := &Watcher{seq: snap.Seq(), snapshot: snap}
		w.changes, err = db.Subscribe(ctx, &SubscribeOptions{From: w.seq + 1, LowerBound: b.lower, UpperBound: b.upper})
		if err == nil {
			var life context.Context
			life, w.cancel = context.WithCancel(context.Background())
			w.keys, err = snap.NewIter(life, &IterOptions{LowerBound: b.lower, UpperBound: b.upper})
			if err == nil {
				return w, nil
			}
			w.cancel()
			_ = w.changes.Close() // never fails
		}
		err = errors.Join(err, snap.Close())
		if !errors.Is(err, ErrCompacted) || ctx.Err() != nil {
			return nil, err
		}
		// Retention was faster than the two calls; it does not stay that.
	}
}

// Next returns the next change and waits for it if there is none. The errors are
// those of Subscription.Next. After a *CompactedError, because whoever reads was
// too slow for retention, what he has is out of date for good: watch anew. Any
// other error leaves the Watcher where it was.
func (w *Watcher) Next(ctx context.Context) (Change, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.snapshot != nil {
		if err := ctx.Err(); err != nil {
			return Change{}, err
		}
		return w.initial()
	}
	ev, err := w.changes.Next(ctx)
	if err != nil {
		return Change{}, err
	}
	return Change{Kind: ChangeEvent, Seq: ev.Seq, Event: ev}, nil
}

// initial returns the next initial key, or that there are no more.
func (w *Watcher) initial() (Change, error) {
	move := w.keys.Next
	if !w.started {
		move = w.keys.First
	}
	if move() {
		w.started = true
		return Change{Kind: ChangeKey, Seq: w.seq, Key: append([]byte{}, w.keys.Key()...), Value: append([]byte{}, w.keys.Value()...)}, nil
	}
	if err := w.keys.Error(); err != nil {
		return Change{}, err
	}
	if err := w.endInitial(); err != nil {
		return Change{}, err
	}
	return Change{Kind: ChangeReady, Seq: w.seq}, nil
}

func (w *Watcher) endInitial() error {
	if w.snapshot == nil {
		return nil
	}
	err := errors.Join(w.keys.Close(), w.snapshot.Close())
	w.snapshot = nil
	return err
}

// All returns the changes to range over: it calls Next and ends after the first
// error, which it yields, that of ctx too.
func (w *Watcher) All(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			c, err := w.Next(ctx)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the Watcher. A call of Next that waits returns ErrClosed. Further
// calls do nothing.
func (w *Watcher) Close() error {
	w.cancel()
	_ = w.changes.Close() // never fails
	w.turn.Lock()
	defer w.turn.Unlock()
	return w.endInitial()
}
