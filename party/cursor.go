package party

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// MaxCursors is how many names subscriptions may have, in one database, and
// MaxCursorName how long one may be, in bytes.
const (
	MaxCursors    = apply.MaxCursors
	MaxCursorName = apply.MaxCursorName
)

// cursor is what a named subscription holds.
type cursor struct {
	name string
	lock *leaderLock // of the name: one owner in all processes
	turn chan struct{}

	acked atomic.Uint64 // changes under turn
}

// place returns where a named subscription begins: behind what was acknowledged.
// The first time it is from, or what commits from now on, and is noted at once,
// so that nothing is missed if the process dies before its first Ack.
func (c *cursor) place(ctx context.Context, db *DB, from uint64) (uint64, error) {
	for {
		all, committed, err := db.cursors(ctx)
		if err != nil {
			return 0, err
		}
		if seq, ok := all[c.name]; ok {
			c.acked.Store(seq)
			return seq + 1, nil
		}
		if from == 0 {
			from = committed + 1
		}
		if from > committed+1 {
			return 0, &TruncatedError{Last: committed}
		}
		before := from - 1
		c.acked.Store(before)
		made, err := db.moveCursor(ctx, c.name, nil, &before)
		if err != nil {
			return 0, err
		}
		if made {
			return from, nil
		}
	}
}

// Ack notes, in the database, that everything up to the sequence number seq has
// been dealt with: the next subscription of this name begins behind it, in
// whatever process. seq is that of an event which Next returned; one that was
// acknowledged already changes nothing. It may be called from any goroutine.
//
// What is not acknowledged when the process dies is delivered again: each event
// at least once. An Ack survives kill -9; a power cut may take it, and those of
// the last moments are delivered again.
//
// ErrCursorLost: the name was dropped. Other errors are those of a write; then it
// is unknown whether seq was acknowledged, and a later Ack tells.
func (s *Subscription) Ack(ctx context.Context, seq uint64) error {
	c := s.cursor
	if c == nil {
		return errors.New("party: acknowledge: the subscription has no name")
	}
	if seq > s.delivered.Load() {
		return fmt.Errorf("party: acknowledge %d: the last event delivered is %d", seq, s.delivered.Load())
	}
	select {
	case c.turn <- struct{}{}:
	case <-s.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	return c.move(ctx, s, seq)
}

// move moves the cursor up to seq. turn is held.
func (c *cursor) move(ctx context.Context, s *Subscription, seq uint64) error {
	for acked := c.acked.Load(); seq > acked; acked = c.acked.Load() {
		if s.life.Err() != nil { // somebody else may own the name by now
			return ErrClosed
		}
		moved, err := s.db.moveCursor(ctx, c.name, &acked, &seq)
		if err != nil {
			return err
		}
		if moved {
			c.acked.Store(seq)
			return nil
		}
		// An Ack whose outcome was unknown has been carried out; or one of an owner
		// that died, which had dealt with those events.
		all, _, err := s.db.cursors(ctx)
		if err != nil {
			return err
		}
		now, ok := all[c.name]
		if !ok || now < acked {
			return fmt.Errorf("%w: %q", ErrCursorLost, c.name)
		}
		c.acked.Store(now)
	}
	return nil
}

// unacked returns the first number that a named subscription has not acknowledged
// if it owes no Ack, else 0.
func (s *Subscription) unacked() uint64 {
	if s.cursor == nil {
		return 0
	}
	acked := s.cursor.acked.Load()
	if s.delivered.Load() > acked {
		return 0
	}
	return acked + 1
}

// note moves the cursor of a subscription that owes no Ack to where it has read:
// nothing up to there touches its bounds. It is called by Next, so nothing is
// delivered meanwhile. If it fails the leader asks again.
func (s *Subscription) note(ctx context.Context) {
	if s.unacked() == 0 {
		return
	}
	select {
	case s.cursor.turn <- struct{}{}:
	default:
		return // an Ack is under way
	}
	defer func() { <-s.cursor.turn }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)() // Close waits for Next
	read := s.turn.next - 1
	if mutant.NoteTooFar {
		read += 2
	}
	if err := s.cursor.move(ctx, s, read); err != nil {
		s.db.log.Debug("party: note how far a subscription has come", "name", s.cursor.name, "err", err)
	}
}

// DropCursor forgets the subscription name and how far it was acknowledged. It
// is no error if there is none. A subscription that has the name goes on, but its
// Acks fail with ErrCursorLost. What became of the call after an error is
// unknown, as with a write.
func (db *DB) DropCursor(ctx context.Context, name string) error {
	for {
		all, _, err := db.cursors(ctx)
		if err != nil {
			return err
		}
		seq, ok := all[name]
		if ok {
			dropped, err := db.moveCursor(ctx, name, &seq, nil)
			if err != nil {
				return err
			}
			if !dropped {
				continue // it has moved
			}
		}
		db.sweepCursor(name)
		return nil
	}
}

// moveCursor sets a cursor to seq, or drops it, if it stands at old.
func (db *DB) moveCursor(ctx context.Context, name string, old, seq *uint64) (moved bool, err error) {
	cmd := &apply.Command{Origin: db.origin}
	apply.MoveCursor(cmd, name, old, seq)
	c := &call{cmd: cmd, size: cmd.Size()}
	if err := db.writes.do(ctx, c); err != nil {
		return false, db.explain(err)
	}
	switch c.answer.Outcome {
	case apply.OutcomeDone:
		return true, nil
	case apply.OutcomeNotSwapped:
		return false, nil
	case apply.OutcomeForgotten:
		return false, ErrUnknownOutcome
	}
	return false, wrapError(c.answer.Err)
}
