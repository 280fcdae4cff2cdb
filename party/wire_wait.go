package party

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Messages of subscriptions that wait.
const (
	msgWait   msgType = 40 // waitRequest → msgNotice, when there is something
	msgNotice msgType = 41
)

const noticeNote = 1 // flag

// Bounds of a waitRequest; with more to wait for it asks for everything.
const (
	maxRanges     = 16
	maxRangeBytes = 16 << 10
)

// waitRequest asks to be told when something commits behind After that touches
// one of Ranges; none means anything. It takes the place of an earlier one of the
// same origin.
type waitRequest struct {
	Origin    apply.Origin
	ID, After uint64
	// Unacked is the first number that a named subscription among those who wait has
	// not acknowledged, though it owes no Ack: it has had no event since. 0: none.
	Unacked uint64
	Ranges  []bounds
}

// bound asks for everything if the ranges are too many to look at.
func (w *waitRequest) bound() {
	size := 0
	for i := range w.Ranges {
		b := &w.Ranges[i]
		size += len(b.lower) + len(b.upper)
		if b.unbounded() || size > maxRangeBytes || len(w.Ranges) > maxRanges {
			w.Ranges = nil
			return
		}
	}
}

func (w *waitRequest) append(dst []byte) []byte {
	dst = appendHeader(dst, msgWait)
	dst = append(dst, w.Origin[:]...)
	dst = binary.AppendUvarint(dst, w.ID)
	dst = binary.AppendUvarint(dst, w.After)
	dst = binary.AppendUvarint(dst, w.Unacked)
	dst = binary.AppendUvarint(dst, uint64(len(w.Ranges)))
	for i := range w.Ranges {
		dst = appendBytes(dst, w.Ranges[i].lower)
		dst = appendBytes(dst, w.Ranges[i].upper)
	}
	return dst
}

// decode fills w; its ranges are copied, as they outlive the message.
func (w *waitRequest) decode(b []byte, c *pebble.Comparer) error {
	r := reader{b: b}
	r.fixed(w.Origin[:])
	w.ID, w.After, w.Unacked = r.uvarint(), r.uvarint(), r.uvarint()
	n := r.count()
	if n > maxRanges {
		return fmt.Errorf("%w: %d ranges", errWire, n)
	}
	w.Ranges = nil
	for range n {
		w.Ranges = append(w.Ranges, bounds{cloneBytes(r.bytes()), cloneBytes(r.bytes())})
	}
	if err := r.err(); err != nil {
		return err
	}
	if len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errWire, len(r.b))
	}
	for i := range w.Ranges {
		if err := w.Ranges[i].check(c); err != nil { // comparers may panic
			return fmt.Errorf("%w: range: %w", errWire, err)
		}
	}
	return nil
}

func appendNotice(dst []byte, id uint64, n notice) []byte {
	dst = appendHeader(dst, msgNotice)
	dst = binary.AppendUvarint(dst, id)
	dst = binary.AppendUvarint(dst, n.Through)
	dst = binary.AppendUvarint(dst, n.Committed)
	if n.Note {
		return append(dst, noticeNote)
	}
	return append(dst, 0)
}

// decodeNotice decodes the whole message that answers a waitRequest.
func decodeNotice(data []byte) (id uint64, n notice, err error) {
	t, body, err := openMessage(data)
	if err != nil {
		return 0, notice{}, err
	}
	r := reader{b: body}
	switch t {
	case msgNotice:
		id, n.Through, n.Committed = r.uvarint(), r.uvarint(), r.uvarint()
		n.Note = r.byte()&noticeNote != 0
		return id, n, r.err()
	case msgError:
		return 0, notice{}, r.error()
	}
	return 0, notice{}, fmt.Errorf("%w: reply type %d to a wait", errWire, t)
}
