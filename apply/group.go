package apply

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// Outcome says what became of a command.
type Outcome uint8

const (
	// OutcomeDone: the command is in the log under Answer.Seq, now or since an
	// earlier sending of it.
	OutcomeDone Outcome = iota + 1
	// OutcomeNotSwapped: its condition does not hold. Nothing was logged.
	OutcomeNotSwapped
	// OutcomeRefused: Answer.Err says why. Nothing was logged.
	OutcomeRefused
	// OutcomeForgotten: the command came again, and so many other handles have
	// written since that nothing is known of its first time. It was not applied
	// now; whether it was then is unknown.
	OutcomeForgotten
)

// Answer is what a command's caller is told.
type Answer struct {
	Outcome Outcome
	Seq     uint64
	Err     error
}

// Group collects the commands that will be appended to the log together, with
// one sync, and then applied together. A command is judged against the state
// plus what the group already holds.
type Group struct {
	m       *Machine
	next    uint64 // sequence number of the next accepted command
	nanos   int64
	sync    bool
	batch   *pebble.Batch // the effects so far; indexed once a condition had to be judged
	indexed bool
	wipes   bool // a DeleteRange is among them

	entries [][]byte
	buf     []byte // backs entries
	records []record
	moves   []cursorMove
}

// record is what the sessions have to learn when the group is applied.
type record struct {
	origin      Origin
	number, low uint64
}

// Begin starts a group whose first entry will have sequence number next. now is
// the leader's clock; entries never go back in time.
func (m *Machine) Begin(g *Group, next uint64, now time.Time) {
	g.m, g.next, g.nanos = m, next, now.UnixNano()
	if !mutant.TimeGoesBack {
		g.nanos = max(m.nanos, g.nanos)
	}
	g.sync, g.indexed, g.wipes = false, false, false
	g.batch = nil
	clear(g.entries)
	g.entries, g.records, g.moves = g.entries[:0], g.records[:0], g.moves[:0]
	if cap(g.buf) > 8<<20 {
		g.buf = nil
	}
	g.buf = g.buf[:0]
}

// Judge decides about one command. An accepted command has OutcomeDone and a
// sequence number of this group: that answer holds once the group is appended
// and applied, and must not be given before.
//
// A command that was logged before, by this leader or another, has OutcomeDone
// with its first sequence number and is not added again. That memory spans the
// commands an origin has without an answer, for MaxOrigins origins.
//
// A command with a condition on a key, unless it moves a cursor, must not come before CatchUp
// has returned.
func (g *Group) Judge(c *Command) Answer {
	if seq, ok := g.seen(c); ok {
		// Its first logging may not have been synced, or not yet.
		g.sync = g.sync || c.Sync
		return Answer{Outcome: OutcomeDone, Seq: seq}
	}
	known := g.m.sessions.byOrigin[c.Origin]
	// What the origin wrote before it was forgotten is not in its memory now.
	horizon := g.m.sessions.floor
	if known != nil {
		horizon = known.born
	}
	if c.Retry && c.Since < horizon {
		return Answer{Outcome: OutcomeForgotten}
	}
	if c.Low > c.Number || known != nil && c.Number < known.low {
		return refused(fmt.Errorf("%w: number %d is below %d, which was answered", ErrInvalidCommand, c.Number, c.Low))
	}
	if c.Cursor {
		return g.judgeCursor(c)
	}
	shape, err := scanRepr(c.Repr)
	if err != nil {
		return refused(err)
	}
	if err := g.m.checkKeys(c); err != nil {
		return refused(err)
	}
	if c.Cond != nil {
		holds, err := g.holds(c.Cond)
		if err != nil {
			return refused(fmt.Errorf("read the compared key: %w", err))
		}
		if !holds {
			return Answer{Outcome: OutcomeNotSwapped}
		}
	}
	if shape.count == 0 {
		// Nothing to log; with Sync it makes all that was logged before durable.
		g.sync = g.sync || c.Sync
		return Answer{Outcome: OutcomeDone, Seq: g.next - 1}
	}
	if err := g.add(c.Repr, shape); err != nil {
		return refused(err)
	}
	g.wipes = g.wipes || shape.rangeDeletes
	return g.accept(c)
}

// accept adds the entry of a command whose effects were added.
func (g *Group) accept(c *Command) Answer {
	g.sync = g.sync || c.Sync
	start := len(g.buf)
	g.buf = appendEntry(g.buf, c, g.nanos)
	g.entries = append(g.entries, g.buf[start:len(g.buf):len(g.buf)])
	g.records = append(g.records, record{c.Origin, c.Number, c.Low})
	g.next++
	return Answer{Outcome: OutcomeDone, Seq: g.next - 1}
}

func refused(err error) Answer { return Answer{Outcome: OutcomeRefused, Err: err} }

// seen looks for a command among those logged and those of this group.
func (g *Group) seen(c *Command) (seq uint64, ok bool) {
	if s := g.m.sessions.byOrigin[c.Origin]; s != nil {
		if seq, ok := s.find(c.Number); ok {
			return seq, true
		}
	}
	if !c.Retry {
		return 0, false // only what is sent again can be in the group already
	}
	first := g.next - uint64(len(g.records))
	for i, r := range g.records {
		if r.origin == c.Origin && r.number == c.Number {
			return first + uint64(i), true
		}
	}
	return 0, false
}

// holds judges a condition against the state and the group's effects so far.
func (g *Group) holds(c *Condition) (bool, error) {
	if IsReserved(c.Key) {
		return c.Absent, nil
	}
	if g.m.Behind() {
		panic("apply: a condition was judged before the state had caught up")
	}
	if g.batch != nil && !g.indexed {
		// The first condition after plain writes: from here on the effects must
		// be readable.
		b := g.m.store.db.NewIndexedBatch()
		if err := b.Apply(g.batch, nil); err != nil {
			return false, errors.Join(err, b.Close())
		}
		if err := g.batch.Close(); err != nil {
			return false, errors.Join(err, b.Close())
		}
		g.batch, g.indexed = b, true
	}
	var from pebble.Reader = g.m.store.db
	if g.batch != nil {
		from = g.batch
	}
	v, closer, err := from.Get(c.Key)
	if errors.Is(err, pebble.ErrNotFound) {
		return c.Absent, nil
	}
	if err != nil {
		return false, err
	}
	return !c.Absent && bytes.Equal(v, c.Value), closer.Close()
}

// makeBatch makes the batch for effects, if there is none yet.
func (g *Group) makeBatch() {
	switch {
	case g.batch != nil:
	case g.m.Behind(): // it will be discarded, and Pebble may not be open
		g.batch = new(pebble.Batch)
	default:
		g.batch = g.m.store.db.NewBatch()
	}
}

// add adds the effects of one batch.
func (g *Group) add(repr []byte, s shape) error {
	g.makeBatch()
	var b pebble.Batch
	if err := b.SetRepr(effects(repr, s)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidBatch, err)
	}
	if err := g.batch.Apply(&b, nil); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidBatch, err)
	}
	return nil
}

// Entries returns what must be appended to the log, in order. The bytes are
// valid until the next Begin.
func (g *Group) Entries() [][]byte { return g.entries }

// Sync tells whether an answer of this group needs the log to be durable.
func (g *Group) Sync() bool { return g.sync }

// Size is about how many bytes the group will append.
func (g *Group) Size() int { return len(g.buf) }

// Discard forgets the group: its entries could not be appended. None of the
// accepted commands has taken effect.
func (g *Group) Discard() error {
	if g.batch == nil {
		return nil
	}
	b := g.batch
	g.batch = nil
	return b.Close()
}

// Apply applies a group whose entries are in the log; while Pebble is Behind, that
// is left to Replay. An error means that the state can no longer follow the log:
// the term must end.
func (m *Machine) Apply(g *Group) error {
	if g.batch == nil {
		return nil
	}
	seq := g.next - uint64(len(g.records))
	for _, r := range g.records {
		if m.replay == nil || !mutant.ForgetDuplicates { // else Replay forgets it too
			m.sessions.record(r.origin, r.number, r.low, seq)
		}
		seq++
	}
	for _, move := range g.moves {
		m.cursors.move(move)
	}
	m.nanos = g.nanos
	if m.replay != nil {
		m.advance(&m.judged, g.next-1)
		return g.Discard()
	}
	m.judged.Store(g.next - 1) // commit wakes those who wait
	b := g.batch
	g.batch = nil
	return m.commit(&m.memory, b, g.records, g.wipes, g.next-1)
}

// commit adds the bookkeeping to b, commits it and publishes seq as applied.
func (m *Machine) commit(mem *memory, b *pebble.Batch, records []record, wipes bool, seq uint64) error {
	defer b.Close()
	all := m.sparse.Swap(false) || wipes
	if err := mem.book(b, m.id, records, all, seq); err != nil {
		return fmt.Errorf("apply up to %d: %w", seq, err)
	}
	if mutant.SplitBatch {
		b = m.applyFirst(b)
	}
	if err := m.store.apply(b); err != nil {
		return fmt.Errorf("apply up to %d: %w", seq, err)
	}
	m.advance(&m.applied, seq)
	return nil
}
