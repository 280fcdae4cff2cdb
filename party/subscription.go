package party

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// SubscribeOptions say what a subscription delivers. The zero value, and nil,
// mean everything that commits from now on.
type SubscribeOptions struct {
	// From is the first sequence number wanted: one more than that of the last
	// event that was seen goes on where that was. 0 means what commits from now on:
	// no write that returned before Subscribe was called, in any process, and every
	// write that is begun after it has returned.
	From uint64

	// LowerBound (inclusive) and UpperBound (exclusive) are the range of keys
	// wanted, in the order of the database's comparer; empty means no bound. An
	// event has only the operations that touch the range, and a DeleteRange is
	// clipped to it. Events without any are skipped.
	LowerBound, UpperBound []byte

	// Name, of at most MaxCursorName bytes, makes the subscription one that the
	// database remembers: it begins behind what was acknowledged (Ack) under that
	// name, in whatever process; From counts the first time only. One subscription
	// at a time owns a name, in all processes; Subscribe waits until the one
	// before is closed or its process has died (a stopped one keeps it), or ctx ends.
	//
	// What does not touch the bounds needs no Ack: while everything that was
	// delivered is acknowledged, the database goes on to remember how far the
	// subscription has come. So give a name the same bounds each time: with wider
	// ones it does not go back for what the narrower ones left out.
	Name string
}

// Subscription delivers every committed batch once, in the order in which they
// committed, without a gap, whoever wrote it and however many leaders died: or
// an error that says what is missing.
//
// It reads the files of the log in this process. The leader is only asked to say
// when there is more; a subscription that is behind, or that nobody reads from,
// costs nobody anything.
//
// Next and Events are for one goroutine at a time; Close may be called from any.
type Subscription struct {
	// Immutable.
	db      *DB
	bounds  bounds
	compare pebble.Compare
	life    context.Context // ends with Close
	end     context.CancelFunc
	done    <-chan struct{} // of life
	told    chan notice     // capacity 1: from whoever has news while this one waits
	cursor  *cursor         // nil without a name

	delivered atomic.Uint64 // the last event

	closing sync.Once

	turn struct { // of the goroutine in Next; it is held while that reads and waits
		sync.Mutex
		reader *eventlog.Reader
		first  *eventlog.Record // what Subscribe has read already
		next   uint64           // everything below was delivered or does not matter
		limit  uint64           // the log is committed up to here at least
		proved uint64           // limit when the reader was opened again because it found less than that
		err    error            // for good
	}
}

// Subscribe returns a subscription to what commits. It asks the leader where the
// log ends if it does not know that yet, and waits for one when there is none; ctx is for
// that only. The bounds are copied. The caller must Close it.
//
// The error is a *CompactedError if From is not in the log any more, a
// *TruncatedError if From lies beyond the end of the log or behind what a power
// cut took of it, ErrClosed, ErrCorrupt, one about the options, what the file
// system said, or that of ctx.
func (db *DB) Subscribe(ctx context.Context, o *SubscribeOptions) (*Subscription, error) {
	if o == nil {
		o = &SubscribeOptions{}
	}
	s := &Subscription{
		db: db, compare: db.opts.Pebble.Comparer.Compare,
		bounds: bounds{cloneBytes(o.LowerBound), cloneBytes(o.UpperBound)},
		told:   make(chan notice, 1),
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.done = s.life.Done()
	if err := s.bounds.check(db.opts.Pebble.Comparer); err != nil {
		return nil, fmt.Errorf("party: subscribe: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	from := o.From
	if o.Name != "" {
		var err error
		if s.cursor, err = db.own(ctx, o.Name); err != nil {
			return nil, fmt.Errorf("party: subscribe: %w", err)
		}
		if from, err = s.cursor.place(ctx, db, from); err != nil {
			s.release()
			return nil, err
		}
		s.delivered.Store(s.cursor.acked.Load())
	}
	if err := s.enter(ctx, from); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// enter goes to the sequence number from, 0 for what commits from now on.
func (s *Subscription) enter(ctx context.Context, from uint64) error {
	db := s.db
	committed := db.committed()
	if from == 0 || from > committed+1 {
		var err error
		if committed, err = db.askCommitted(ctx); err != nil {
			return err
		}
	}
	if from > committed+1 {
		return &TruncatedError{Last: committed}
	}
	if s.turn.next, s.turn.limit = from, committed; from == 0 {
		s.turn.next = committed + 1
	}
	if err := s.begin(); err != nil {
		return err
	}
	if !db.subscriptions.add(s) {
		return ErrClosed
	}
	return nil
}

// begin opens the log and goes to where the subscription begins, so that it
// fails now if it must.
func (s *Subscription) begin() error {
	rec, ok, err := s.read()
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if err := s.follows(&rec); err != nil {
		return err
	}
	s.turn.first = &rec
	return nil
}

// Next returns the next event and waits for it if there is none: until ctx ends,
// the subscription or the handle is closed (ErrClosed), or nobody can lead, which
// is an error that says why.
//
// While there is no leader it delivers what was committed before, and then waits
// for the next one. After a *CompactedError (retention has overtaken this
// subscription) or a *TruncatedError the subscription has failed and returns that
// error again; any other error leaves it where it was.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	for {
		select {
		case <-s.done:
			return Event{}, ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		if s.turn.err != nil {
			return Event{}, s.turn.err
		}
		rec, ok, err := s.read()
		if err != nil {
			return Event{}, err
		}
		if !ok {
			if err := s.catchUp(ctx); err != nil {
				return Event{}, err
			}
			continue
		}
		ev, ok, err := s.event(&rec)
		if ok {
			s.delivered.Store(ev.Seq)
		}
		if ok || err != nil {
			return ev, err
		}
	}
}

// Events returns the events to range over: it calls Next and ends after the
// first error, which it yields, that of ctx too.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			ev, err := s.Next(ctx)
			if !yield(ev, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the subscription. A call of Next that waits returns ErrClosed, as do
// later ones. Further calls of Close do nothing.
func (s *Subscription) Close() error {
	s.closing.Do(func() {
		s.end()
		s.db.subscriptions.remove(s)
		s.release()
	})
	return nil
}

// release closes the reader once Next has left, and lets the name go. An Ack that
// is under way cannot take anything from the next owner: it moves the cursor only
// from where this one left it.
func (s *Subscription) release() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.drop()
	if s.cursor != nil {
		_ = s.cursor.lock.unlock() // closing the file unlocks it, whatever is said
	}
}

func (s *Subscription) drop() {
	if s.turn.reader != nil {
		_ = s.turn.reader.Close() // it only read
		s.turn.reader = nil
	}
}

// read returns the next record up to the limit.
func (s *Subscription) read() (rec eventlog.Record, ok bool, err error) {
	t := &s.turn
	if t.first != nil {
		rec, t.first = *t.first, nil
		return rec, true, nil
	}
	if t.reader == nil {
		t.reader, err = eventlog.OpenReader(s.db.opts.Pebble.FS, s.db.path("log"), t.next)
		if err != nil {
			return rec, false, s.failed(err)
		}
	}
	if rec, ok, err = t.reader.Next(t.limit); err != nil {
		return rec, false, s.failed(err)
	}
	return rec, ok, nil
}

// event makes an event of a record; ok is false if there is none in it.
func (s *Subscription) event(rec *eventlog.Record) (ev Event, ok bool, err error) {
	if err := s.follows(rec); err != nil {
		return Event{}, false, err
	}
	if rec.Kind == eventlog.KindEntry {
		e, err := apply.DecodeEntry(rec.Payload)
		if err != nil {
			s.turn.err = wrapError(fmt.Errorf("party: entry %d of the log: %w", rec.Seq, err))
			return Event{}, false, s.turn.err
		}
		if !e.Cursor { // nobody's business
			ev, ok = newEvent(rec.Seq, &e, &s.bounds, s.compare)
		}
	}
	s.turn.next = rec.Seq + 1
	return ev, ok, nil
}

// follows tells whether a record is what has to come next. Only a term record
// behind a gap may not be: then what was seen up to next lies in the gap.
func (s *Subscription) follows(rec *eventlog.Record) error {
	if s.turn.next > rec.Prev+1 && rec.Kind == eventlog.KindTerm {
		s.turn.err = &TruncatedError{Last: rec.Prev}
	}
	return s.turn.err
}

// failed turns an error of the reader into one of ours.
func (s *Subscription) failed(err error) error {
	var compacted *eventlog.CompactedError
	if errors.As(err, &compacted) {
		s.turn.err = &CompactedError{First: compacted.First}
		s.drop()
		return s.turn.err
	}
	return wrapError(err)
}

// catchUp returns when there may be more to read.
func (s *Subscription) catchUp(ctx context.Context) error {
	t := &s.turn
	if c := s.db.committed(); c > t.limit {
		t.limit = c
		return nil
	}
	if t.next <= t.limit && t.proved != t.limit {
		// Committed, and not there. If a failed sync took it with the leader, the
		// reader stands behind the end of the log; a new one finds out.
		t.proved = t.limit
		s.drop()
		return nil
	}
	n, err := s.db.subscriptions.wait(ctx, s, max(t.limit, t.next-1))
	if err != nil {
		return err
	}
	t.limit = max(t.limit, n.Committed)
	if n.Through >= t.next {
		t.next = n.Through + 1
		if t.reader != nil {
			t.reader.SkipTo(t.next)
		}
	}
	if n.Note {
		s.note(ctx)
	}
	return nil
}
