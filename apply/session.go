package apply

import (
	"encoding/binary"
	"fmt"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// MaxOrigins is how many origins are remembered: a command that comes again is
// recognised unless, since it was logged, this many other handles have written
// too. A handle whose origin was forgotten gets an error for a command that it
// sends again (OutcomeForgotten); the command is never applied a second time.
const MaxOrigins = 1024

// session is what was logged for one origin and may be asked for again.
type session struct {
	slot uint32 // where it is stored; MaxOrigins slots are reused
	low  uint64 // numbers below it were answered
	runs []run  // ascending, of numbers >= low
	last uint64 // sequence number of the newest command
	born uint64 // what the floor was when it was made: the origin may have been known, and forgotten, before that
}

// run: numbers num..num+n-1 were logged as seq..seq+n-1.
type run struct{ num, seq, n uint64 }

// find returns the sequence number that a command was logged under.
func (s *session) find(number uint64) (seq uint64, ok bool) {
	for _, r := range s.runs {
		if number >= r.num && number-r.num < r.n {
			return r.seq + (number - r.num), true
		}
	}
	return 0, false
}

// record notes that number was logged as seq and that all below low is answered.
func (s *session) record(number, low, seq uint64) {
	s.last = seq
	if low > s.low {
		s.low = low
		keep := s.runs[:0]
		for _, r := range s.runs {
			if r.num+r.n > low {
				keep = append(keep, r)
			}
		}
		s.runs = keep
	}
	if k := len(s.runs) - 1; k >= 0 && s.runs[k].num+s.runs[k].n == number && s.runs[k].seq+s.runs[k].n == seq {
		s.runs[k].n++
		return
	}
	s.runs = append(s.runs, run{num: number, seq: seq, n: 1})
}

// append appends the stored form of the session in slot: origin [16], then as
// uvarints last, low, born, the number of runs, and num, seq, n of each.
func (s *session) append(dst []byte, o Origin) []byte {
	dst = append(dst, o[:]...)
	dst = binary.AppendUvarint(dst, s.last)
	dst = binary.AppendUvarint(dst, s.low)
	dst = binary.AppendUvarint(dst, s.born)
	dst = binary.AppendUvarint(dst, uint64(len(s.runs)))
	for _, r := range s.runs {
		dst = binary.AppendUvarint(dst, r.num)
		dst = binary.AppendUvarint(dst, r.seq)
		dst = binary.AppendUvarint(dst, r.n)
	}
	return dst
}

func decodeSession(src []byte) (o Origin, s *session, err error) {
	if len(src) < len(o) {
		return o, nil, fmt.Errorf("%w: damaged session", ErrCorrupt)
	}
	copy(o[:], src)
	d := decoder{src: src[len(o):]}
	s = &session{last: d.uvarint(), low: d.uvarint(), born: d.uvarint()}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.src)) {
		return o, nil, fmt.Errorf("%w: damaged session", ErrCorrupt)
	}
	for range n {
		s.runs = append(s.runs, run{num: d.uvarint(), seq: d.uvarint(), n: d.uvarint()})
	}
	if d.bad || len(d.src) != 0 {
		return o, nil, fmt.Errorf("%w: damaged session", ErrCorrupt)
	}
	return o, s, nil
}

// sessions is the memory of all origins. It is part of the replicated state:
// it changes only as entries are applied, or learned, in the same way everywhere.
type sessions struct {
	byOrigin map[Origin]*session
	slots    []Origin // slots[s.slot] is the origin of s; MaxOrigins at most
	// floor is the newest sequence number of any origin that was forgotten.
	floor uint64
}

// load puts a stored session into its slot; slots are loaded in order.
func (t *sessions) load(slot uint32, value []byte) error {
	o, s, err := decodeSession(value)
	if err != nil {
		return fmt.Errorf("slot %d: %w", slot, err)
	}
	if mutant.ForgetDuplicates {
		return nil
	}
	s.slot = slot
	t.byOrigin[o] = s
	t.slots = append(t.slots, o)
	return nil
}

// record notes an applied entry and returns the session that changed.
func (t *sessions) record(o Origin, number, low, seq uint64) *session {
	s := t.byOrigin[o]
	if s == nil {
		slot := t.take(o) // raises the floor
		s = &session{slot: slot, born: t.floor}
		t.byOrigin[o] = s
	}
	s.record(number, low, seq)
	return s
}

// take finds a slot for a new origin: a fresh one, or that of the origin that
// wrote least recently, which is forgotten. Sequence numbers differ between
// origins, so the choice depends on the log alone.
func (t *sessions) take(o Origin) uint32 {
	if len(t.slots) < MaxOrigins {
		t.slots = append(t.slots, o)
		return uint32(len(t.slots) - 1)
	}
	var slot uint32
	last := ^uint64(0)
	for i, other := range t.slots {
		if s := t.byOrigin[other]; s.last < last {
			slot, last = uint32(i), s.last
		}
	}
	delete(t.byOrigin, t.slots[slot])
	t.slots[slot] = o
	t.floor = max(t.floor, last)
	return slot
}
