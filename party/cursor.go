package party

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

// MaxCursors is how many names subscriptions may have, in one database, and
// MaxCursorName how long one may be, in bytes.
const (
	MaxCursors    = apply.MaxCursors
	MaxCursorName = apply.MaxCursorName
)

// Messages of cursors.
const (
	msgCursors     msgType = 44 // → msgCursorList
	msgCursorList  msgType = 45
	cursorPatience         = 100 * time.Millisecond // between two attempts to own a name
)

// CursorStatus is a named subscription as the database remembers it.
type CursorStatus struct {
	Name  string
	Acked uint64 // sequence number up to which it was acknowledged, or nothing concerned it
	Lag   uint64 // how many sequence numbers were committed since
}

// cursor is what a named subscription holds.
type cursor struct {
	name string
	lock *leaderLock // of the name: one owner in all processes
	turn chan struct{}

	acked atomic.Uint64 // changes under turn
}

// own returns the cursor of a name once nobody else has it.
func (db *DB) own(ctx context.Context, name string) (*cursor, error) {
	if len(name) > MaxCursorName {
		return nil, fmt.Errorf("%w: the name of a subscription has %d bytes, the limit is %d", ErrTooLarge, len(name), MaxCursorName)
	}
	folder := db.path("cursors")
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	for {
		lock, ok, err := tryLock(db.cursorLock(name))
		if err != nil {
			return nil, err
		}
		if ok {
			return &cursor{name: name, lock: lock, turn: make(chan struct{}, 1)}, nil
		}
		// The kernel frees it when its owner dies, and tells nobody.
		pause(ctx, cursorPatience)
		select {
		case <-db.ended:
			return nil, ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: another subscription has the name %q", err, name)
		}
	}
}

// cursorLock returns the path of the lock whose holder owns a name.
func (db *DB) cursorLock(name string) string {
	sum := sha256.Sum256([]byte(name))
	return db.path("cursors/" + hex.EncodeToString(sum[:16]) + ".lock")
}

// sweepCursor removes the lock file of a name that is no more, unless somebody has
// it. Only its holder removes it, and who took the lock of a file that was removed
// meanwhile finds that out (tryLock); so no two own a name. What a crash, or a
// system that removes no open file, leaves behind is an empty file.
func (db *DB) sweepCursor(name string) {
	path := db.cursorLock(name)
	if _, err := os.Stat(path); err != nil {
		return
	}
	if lock, ok, err := tryLock(path); err == nil && ok {
		_ = os.Remove(path)
		_ = lock.unlock()
	}
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
	if err := s.cursor.move(ctx, s, s.turn.next-1); err != nil {
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

// cursorStatus is what Status says of cursors.
func (db *DB) cursorStatus(ctx context.Context) (list []CursorStatus, err error) {
	all, committed, err := db.cursors(ctx)
	for name, seq := range all {
		list = append(list, CursorStatus{Name: name, Acked: seq, Lag: committed - min(seq, committed)})
	}
	slices.SortFunc(list, func(a, b CursorStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// cursors returns where all cursors stand and up to where the log is committed, at
// some moment after the call.
func (db *DB) cursors(ctx context.Context) (all map[string]uint64, committed uint64, err error) {
	for {
		s, err := db.route(ctx)
		if err != nil {
			return nil, 0, db.explain(err)
		}
		var body []byte
		if s.leader != nil {
			body, err = s.leader.cursors(ctx, nil)
		} else {
			var t msgType
			t, body, err = s.remote.ask(ctx, appendHeader(nil, msgCursors))
			if err == nil && t != msgCursorList {
				err = fmt.Errorf("%w: reply type %d", errWire, t)
			}
		}
		if err == nil {
			return decodeCursors(body)
		}
		if errors.Is(err, errLost) {
			err = db.leave(ctx, s)
		}
		if err != nil {
			return nil, 0, db.explain(err)
		}
	}
}

// cursors appends the body of a msgCursorList.
func (l *leader) cursors(ctx context.Context, dst []byte) ([]byte, error) {
	if !l.gate.enter() {
		return nil, errLost
	}
	defer l.gate.exit()
	committed := l.word.Committed()
	if err := l.machine.WaitApplied(ctx, committed); err != nil {
		return nil, err
	}
	all := l.machine.Cursors()
	dst = binary.AppendUvarint(dst, committed)
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, c := range all {
		dst = appendBytes(dst, []byte(c.Name))
		dst = binary.AppendUvarint(dst, c.Seq)
	}
	return dst, nil
}

func decodeCursors(body []byte) (all map[string]uint64, committed uint64, err error) {
	r := reader{b: body}
	committed = r.uvarint()
	all = make(map[string]uint64)
	for range r.count() {
		name := string(r.bytes())
		all[name] = r.uvarint()
		if r.bad {
			break
		}
	}
	return all, committed, r.err()
}
