package party

import (
	"encoding/binary"
	"fmt"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// What iterators send, and their pages. Pages go to the inbox of each, which is
// also its name.
const (
	msgIterSeek  msgType = 50 // iterSeek → iterPages
	msgIterMore  msgType = 51 // iterMore, no reply
	msgIterClose msgType = 52 // iterClose, no reply
	msgIterPage  msgType = 53 // iterPage
)

// iterSeek has the leader begin a walk and send its first pages.
type iterSeek struct {
	Inbox   string
	Walk    uint64 // counts the walks of the iterator; pages of older ones are dropped
	Allowed uint64 // how many pages may be sent
	At      snapshot.Position
	// Open: the first message of the iterator, which fixes its point in time. Else
	// the leader must have that still.
	Open   bool
	Bounds snapshot.Bounds // only with Open
}

func (s *iterSeek) append(dst []byte) []byte {
	dst = appendHeader(dst, msgIterSeek)
	dst = appendBytes(dst, []byte(s.Inbox))
	dst = binary.AppendUvarint(dst, s.Walk)
	dst = binary.AppendUvarint(dst, s.Allowed)
	dst = s.At.Append(dst)
	if s.Open {
		dst = s.Bounds.Append(dst)
	}
	return dst
}

// decode fills s; its position and bounds point into b.
func (s *iterSeek) decode(b []byte) error {
	r := reader{b: b}
	*s = iterSeek{Inbox: string(r.bytes()), Walk: r.uvarint(), Allowed: r.uvarint()}
	if r.bad {
		return r.err()
	}
	rest, err := s.At.Decode(r.b)
	if err == nil && len(rest) > 0 {
		s.Open = true
		rest, err = s.Bounds.Decode(rest)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes too many", len(rest))
	}
	if err != nil {
		return fmt.Errorf("%w: seek: %w", errWire, err)
	}
	return nil
}

// iterMore raises how many pages of a walk may be sent, in all. It also tells
// that the iterator is in use; that alone if Walk is 0.
type iterMore struct {
	Inbox         string
	Walk, Allowed uint64
}

func (m *iterMore) append(dst []byte) []byte {
	dst = appendHeader(dst, msgIterMore)
	dst = appendBytes(dst, []byte(m.Inbox))
	dst = binary.AppendUvarint(dst, m.Walk)
	return binary.AppendUvarint(dst, m.Allowed)
}

func (m *iterMore) decode(b []byte) error {
	r := reader{b: b}
	*m = iterMore{Inbox: string(r.bytes()), Walk: r.uvarint(), Allowed: r.uvarint()}
	return r.err()
}

// iterClose says that the point in time of an iterator is not needed any more.
type iterClose struct {
	Inbox string
	Walk  uint64 // its newest; those that are newer belong to another iterator
}

func (m *iterClose) append(dst []byte) []byte {
	dst = appendHeader(dst, msgIterClose)
	dst = appendBytes(dst, []byte(m.Inbox))
	return binary.AppendUvarint(dst, m.Walk)
}

func (m *iterClose) decode(b []byte) error {
	r := reader{b: b}
	*m = iterClose{Inbox: string(r.bytes()), Walk: r.uvarint()}
	return r.err()
}

// iterPage is a page of a walk, or a part of one pair that is too large for a
// page, or why there is none.
type iterPage struct {
	Walk  uint64
	Index uint64 // counts the pages of the walk
	End   snapshot.End
	Err   error  // instead of data
	Data  []byte // snapshot.DecodePage reads it, once it is whole
}

const pageFailed = 3 // where End stands

// appendHead appends all but Data.
func (p *iterPage) appendHead(dst []byte) []byte {
	dst = appendHeader(dst, msgIterPage)
	dst = binary.AppendUvarint(dst, p.Walk)
	dst = binary.AppendUvarint(dst, p.Index)
	if p.Err != nil {
		return appendError(append(dst, pageFailed), p.Err)
	}
	return append(dst, byte(p.End))
}

// decode fills p; Data points into b.
func (p *iterPage) decode(b []byte) error {
	r := reader{b: b}
	*p = iterPage{Walk: r.uvarint(), Index: r.uvarint(), End: snapshot.End(r.byte())}
	switch p.End {
	case snapshot.More, snapshot.Last, snapshot.Part:
		p.Data = r.b
	case pageFailed:
		p.End = snapshot.More
		p.Err = r.error()
	default:
		r.bad = true
	}
	return r.err()
}
