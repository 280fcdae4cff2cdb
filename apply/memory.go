package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// The encoded form of a memory is in the documentation of the package.
const (
	memoryMagic   = "PPARTMEM"
	memoryVersion = 2
	memoryHead    = 8 + 4 + 4 + 4
	memoryFixed   = 16 + 8 + 8 + 8 + 5*8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNoMemory: the bytes are no memory that can be used.
var errNoMemory = errors.New("apply: not a memory")

// encode appends the memory of database id as of seq, which at is a place of the log close by.
func (m *memory) encode(dst []byte, id eventlog.ID, seq uint64, at eventlog.Position) []byte {
	start := len(dst)
	dst = append(dst, memoryMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, memoryVersion)
	dst = append(dst, make([]byte, 8)...)
	dst = append(dst, id[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = binary.LittleEndian.AppendUint64(dst, m.sessions.floor)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.nanos))
	for _, v := range []uint64{at.Segment, uint64(at.Offset), at.Last, at.Term, at.Limit} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.sessions.slots)))
	var stored []byte
	for _, o := range m.sessions.slots {
		stored = m.sessions.byOrigin[o].append(stored[:0], o)
		dst = appendBytes(dst, stored)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.cursors.slots)))
	for _, c := range m.cursors.slots {
		dst = appendBytes(binary.AppendUvarint(dst, c.Seq), []byte(c.Name))
	}
	body := dst[start+memoryHead:]
	binary.LittleEndian.PutUint32(dst[start+12:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+16:], crc32.Checksum(body, castagnoli))
	return dst
}

// memoryBody returns what is behind the head of a memory, nil if it is none.
func memoryBody(src []byte) []byte {
	if len(src) < memoryHead+memoryFixed || string(src[:8]) != memoryMagic || binary.LittleEndian.Uint32(src[8:]) != memoryVersion {
		return nil
	}
	body := src[memoryHead:]
	n := binary.LittleEndian.Uint32(src[12:])
	if n < memoryFixed || uint64(n) > uint64(len(body)) {
		return nil
	}
	body = body[:n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(src[16:]) {
		return nil
	}
	return body
}

// MemoryPosition returns the place in the log that Machine.Memory was given, none if memory cannot be used. It is for
// opening the log that goes to Resume.
func MemoryPosition(memory []byte) (at eventlog.Position) {
	if body := memoryBody(memory); body != nil {
		v := func(i int) uint64 { return binary.LittleEndian.Uint64(body[16+8*i:]) }
		at = eventlog.Position{Segment: v(3), Offset: int64(v(4)), Last: v(5), Term: v(6), Limit: v(7)}
	}
	return at
}

// decodeMemory is the inverse of encode but for the place. The error is errNoMemory.
func decodeMemory(src []byte) (m *memory, id eventlog.ID, seq uint64, err error) {
	body := memoryBody(src)
	if body == nil {
		return nil, id, 0, errNoMemory
	}
	copy(id[:], body)
	seq = binary.LittleEndian.Uint64(body[16:])
	m = &memory{nanos: int64(binary.LittleEndian.Uint64(body[32:]))}
	m.sessions = sessions{byOrigin: make(map[Origin]*session), floor: binary.LittleEndian.Uint64(body[24:])}
	d := decoder{src: body[memoryFixed:]}
	sessions := d.uvarint()
	if sessions > MaxOrigins {
		return nil, id, 0, errNoMemory
	}
	for slot := range sessions {
		if err := m.sessions.load(uint32(slot), d.bytes()); err != nil {
			return nil, id, 0, fmt.Errorf("%w: %w", errNoMemory, err)
		}
	}
	cursors := d.uvarint()
	if cursors > MaxCursors {
		return nil, id, 0, errNoMemory
	}
	for range cursors {
		m.cursors.slots = append(m.cursors.slots, Cursor{Seq: d.uvarint(), Name: string(d.bytes())})
	}
	if d.bad || len(d.src) != 0 {
		return nil, id, 0, errNoMemory
	}
	return m, id, seq, nil
}

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

// follow notes what r, which stands behind from, has up to last.
func (m *memory) follow(r *eventlog.Reader, from, last uint64) error {
	for seq := from; seq < last; {
		rec, ok, err := r.Next(last)
		if err == nil && !ok {
			err = endsEarly(seq)
		}
		if err != nil {
			return err
		}
		if seq = rec.Seq; rec.Kind != eventlog.KindEntry {
			continue
		}
		e, err := decodeHead(rec.Payload)
		if err != nil {
			return fmt.Errorf("entry %d: %w", seq, err)
		}
		m.learn(&e, seq)
	}
	return nil
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
