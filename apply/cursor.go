package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Bounds of named cursors, which are all in memory.
const (
	MaxCursors    = 1024
	MaxCursorName = 255 // bytes
)

// ErrCursors means that a cursor cannot be made: there are MaxCursors already.
// Nothing was applied.
var ErrCursors = errors.New("apply: too many cursors")

// Cursor is a name that stands for a sequence number.
type Cursor struct {
	Name string
	Seq  uint64
}

// A command with the Cursor flag moves one cursor. Its batch has one operation
// on a reserved key that is made of the name and exists in the log only; the
// state has slots, which can be read under any comparer.

func cursorKey(name string) []byte {
	k := make([]byte, 0, len(ReservedPrefix)+1+len(name)+1)
	k = append(k, ReservedPrefix+"n"...)
	return append(append(k, name...), 0)
}

func cursorSlotKey(slot int) []byte {
	k := append(make([]byte, 0, len(ReservedPrefix)+6), ReservedPrefix+"c"...)
	return append(binary.BigEndian.AppendUint32(k, uint32(slot)), 0)
}

var keyCursors = []byte(ReservedPrefix + "cursors\x00")

// MoveCursor makes the batch and the condition of a command that sets a cursor
// to seq if it stands at old; nil for old means that there must be none, nil for
// seq that it is dropped.
func MoveCursor(c *Command, name string, old, seq *uint64) {
	key := cursorKey(name)
	c.Cursor = true
	c.Cond = &Condition{Key: key, Absent: old == nil}
	if old != nil {
		c.Cond.Value = binary.LittleEndian.AppendUint64(nil, *old)
	}
	c.Repr = ReprDelete(key)
	if seq != nil {
		c.Repr = ReprSet(key, binary.LittleEndian.AppendUint64(nil, *seq))
	}
}

// cursorMove is what the batch of such a command says.
type cursorMove struct {
	Cursor
	drop bool
}

func parseCursor(repr []byte) (m cursorMove, err error) {
	bad := fmt.Errorf("%w: not a move of a cursor", ErrInvalidBatch)
	if len(repr) > reprHeader+2*MaxCursorName {
		return m, bad
	}
	ops := ReadOps(repr)
	op, ok := ops.Next()
	if _, more := ops.Next(); !ok || more || ops.Err() != nil || binary.LittleEndian.Uint32(repr[8:]) != 1 {
		return m, bad
	}
	name, ok := bytes.CutPrefix(op.Key, []byte(ReservedPrefix+"n"))
	if !ok || len(name) < 2 || len(name) > MaxCursorName+1 || name[len(name)-1] != 0 {
		return m, bad
	}
	m.Name = string(name[:len(name)-1])
	switch {
	case op.Kind == pebble.InternalKeyKindDelete:
		m.drop = true
	case op.Kind == pebble.InternalKeyKindSet && len(op.Value) == 8:
		m.Seq = binary.LittleEndian.Uint64(op.Value)
	default:
		return m, bad
	}
	return m, nil
}

// cursors are all of them. They are part of the replicated state: they change
// only as entries are applied, or learned, in the same way everywhere.
type cursors struct {
	mu    sync.Mutex // others than the sequencer read
	slots []Cursor   // without a name: free
	dirty []int      // slots to write; owned by whoever applies
	grown bool       // so is their number
}

func (t *cursors) find(name string) int {
	return slices.IndexFunc(t.slots, func(c Cursor) bool { return c.Name == name })
}

// get returns where a cursor stands.
func (t *cursors) get(name string) (seq uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(name)
	if i < 0 {
		return 0, false
	}
	return t.slots[i].Seq, true
}

// move applies a move that was judged.
func (t *cursors) move(m cursorMove) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(m.Name)
	switch {
	case i < 0 && m.drop:
		return
	case i < 0:
		if i = t.find(""); i < 0 {
			i, t.grown = len(t.slots), true
			t.slots = append(t.slots, Cursor{})
		}
		fallthrough
	default:
		if t.slots[i] = m.Cursor; m.drop {
			t.slots[i] = Cursor{}
		}
	}
	t.dirty = append(t.dirty, i)
}

// list returns all, in the order of their slots.
func (t *cursors) list() []Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(t.slots), func(c Cursor) bool { return c.Name == "" })
}

// book writes the slots that have changed, or all.
func (t *cursors) book(b *pebble.Batch, all bool) error {
	if all {
		t.dirty, t.grown = t.dirty[:0], true
		for i := range t.slots {
			t.dirty = append(t.dirty, i)
		}
	}
	if t.grown {
		if err := b.Set(keyCursors, binary.LittleEndian.AppendUint32(nil, uint32(len(t.slots))), nil); err != nil {
			return err
		}
	}
	for _, i := range t.dirty {
		var err error
		if c := t.slots[i]; c.Name == "" {
			err = b.Delete(cursorSlotKey(i), nil)
		} else {
			err = b.Set(cursorSlotKey(i), append(binary.LittleEndian.AppendUint64(nil, c.Seq), c.Name...), nil)
		}
		if err != nil {
			return err
		}
	}
	t.written()
	return nil
}

// written notes that Pebble has all slots as they are.
func (t *cursors) written() { t.dirty, t.grown = t.dirty[:0], false }

// loadCursors reads the slots from Pebble.
func loadCursors(from pebble.Reader) ([]Cursor, error) {
	n, err := reserved(from, keyCursors)
	if err != nil || n == nil {
		return nil, err
	}
	damaged := fmt.Errorf("%w: the cursors are damaged", ErrCorrupt)
	if len(n) != 4 || binary.LittleEndian.Uint32(n) > MaxCursors {
		return nil, damaged
	}
	slots := make([]Cursor, binary.LittleEndian.Uint32(n))
	for i := range slots {
		v, err := reserved(from, cursorSlotKey(i))
		if err != nil {
			return nil, err
		}
		switch {
		case v == nil:
		case len(v) < 9 || len(v) > 8+MaxCursorName:
			return nil, damaged
		default:
			slots[i] = Cursor{Name: string(v[8:]), Seq: binary.LittleEndian.Uint64(v)}
		}
	}
	return slots, nil
}

// Cursors returns all cursors as they are in v.
func (v *View) Cursors() ([]Cursor, error) {
	slots, err := loadCursors(v.snap)
	return slices.DeleteFunc(slots, func(c Cursor) bool { return c.Name == "" }), err
}

// CursorMove returns what an entry with Cursor says: where the cursor stands from
// then on, or that it was dropped.
func (e *Entry) CursorMove() (c Cursor, dropped bool) {
	m, _ := parseCursor(e.Repr) // DecodeEntry has checked it
	return m.Cursor, m.drop
}

// Cursors returns all cursors and where they stand in the state. It may be called
// from any goroutine.
func (m *Machine) Cursors() []Cursor { return m.cursors.list() }

// judgeCursor is Judge for a command that moves a cursor and was not seen before.
func (g *Group) judgeCursor(c *Command) Answer {
	move, err := parseCursor(c.Repr)
	if err != nil {
		return refused(err)
	}
	if c.Cond == nil || !bytes.Equal(c.Cond.Key, cursorKey(move.Name)) {
		return refused(fmt.Errorf("%w: a move of a cursor without its condition", ErrInvalidCommand))
	}
	seq, there := g.m.cursors.get(move.Name)
	made := 0
	for _, m := range g.moves { // what this group has done already
		if _, before := g.m.cursors.get(m.Name); !before && !m.drop {
			made++ // at most
		}
		if m.Name == move.Name {
			seq, there = m.Seq, !m.drop
		}
	}
	holds := there != c.Cond.Absent && (!there || bytes.Equal(c.Cond.Value, binary.LittleEndian.AppendUint64(nil, seq)))
	if !holds {
		return Answer{Outcome: OutcomeNotSwapped}
	}
	if !there && len(g.m.cursors.list())+made >= MaxCursors {
		return refused(fmt.Errorf("%w: there are %d", ErrCursors, MaxCursors))
	}
	g.makeBatch()
	g.moves = append(g.moves, move)
	return g.accept(c)
}
