package apply

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// memory is the bookkeeping as it is at one sequence number: what is known of
// origins, the named cursors, and the time of the newest entry. It is part of
// the replicated state.
type memory struct {
	sessions sessions
	cursors  cursors
	nanos    int64
}

// clone returns a copy that shares nothing with m.
func (m *memory) clone() *memory {
	c := &memory{nanos: m.nanos}
	c.sessions = sessions{byOrigin: maps.Clone(m.sessions.byOrigin), slots: slices.Clone(m.sessions.slots), floor: m.sessions.floor}
	for o, s := range c.sessions.byOrigin {
		own := *s
		own.runs = slices.Clone(s.runs)
		c.sessions.byOrigin[o] = &own
	}
	c.cursors.slots = slices.Clone(m.cursors.slots)
	return c
}

// learn notes what an entry of the log says about the bookkeeping.
func (m *memory) learn(e *Entry, seq uint64) {
	if e.Cursor {
		move, _ := parseCursor(e.Repr) // decodeHead has checked it
		m.cursors.move(move)
	}
	if !mutant.ForgetDuplicates {
		m.sessions.record(e.Origin, e.Number, e.Low, seq)
	}
	m.nanos = e.Time.UnixNano()
}

// appliedLen: applied u64, floor u64, time i64, session slots in use u32.
const appliedLen = 8 + 8 + 8 + 4

func (m *memory) appliedValue(seq uint64) []byte {
	v := make([]byte, 0, appliedLen)
	v = binary.LittleEndian.AppendUint64(v, seq)
	v = binary.LittleEndian.AppendUint64(v, m.sessions.floor)
	v = binary.LittleEndian.AppendUint64(v, uint64(m.nanos))
	return binary.LittleEndian.AppendUint32(v, uint32(len(m.sessions.slots)))
}

// book writes the bookkeeping that goes with effects up to seq. It comes after
// the effects in the batch, so a DeleteRange among them does not reach it; but some range
// may cover keys of ours that the batch would not write, which ones depends on the
// comparer: then all is to be written.
func (m *memory) book(b *pebble.Batch, id eventlog.ID, records []record, all bool, seq uint64) error {
	if err := m.cursors.book(b, all); err != nil {
		return err
	}
	if all {
		if err := m.bookAll(b, id); err != nil {
			return err
		}
		return b.Set(keyApplied, m.appliedValue(seq), nil)
	}
	var last Origin
	for i := range records {
		// Commands of one origin come in runs; each run's session is written once
		// or, if the origin comes again, once more with the same content.
		if o := records[i].origin; i == 0 || o != last {
			last = o
			s := m.sessions.byOrigin[o]
			if s == nil {
				continue // forgotten again within the group
			}
			if err := b.Set(sessionKey(s.slot), s.append(nil, o), nil); err != nil {
				return err
			}
		}
	}
	return b.Set(keyApplied, m.appliedValue(seq), nil)
}

func (m *memory) bookAll(b *pebble.Batch, id eventlog.ID) error {
	if err := b.Set(keyID, idValue(id), nil); err != nil {
		return err
	}
	for slot, o := range m.sessions.slots {
		s := m.sessions.byOrigin[o]
		if err := b.Set(sessionKey(uint32(slot)), s.append(nil, o), nil); err != nil {
			return err
		}
	}
	return nil
}
