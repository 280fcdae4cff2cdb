package party

import (
	"encoding/binary"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// helloRequest is the first message of a follower on a new connection.
type helloRequest struct{ Comparer, Merger string }

func (h *helloRequest) append(dst []byte) []byte {
	dst = appendHeader(dst, msgHello)
	dst = appendBytes(dst, []byte(h.Comparer))
	return appendBytes(dst, []byte(h.Merger))
}

func (h *helloRequest) decode(b []byte) error {
	r := reader{b: b}
	h.Comparer, h.Merger = string(r.bytes()), string(r.bytes())
	return r.err()
}

// welcome is the leader's reply to hello.
type welcome struct {
	Term      uint64
	PID       uint64
	Database  eventlog.ID
	Committed uint64
}

func (w *welcome) append(dst []byte) []byte {
	dst = appendHeader(dst, msgWelcome)
	dst = binary.AppendUvarint(dst, w.Term)
	dst = binary.AppendUvarint(dst, w.PID)
	dst = append(dst, w.Database[:]...)
	return binary.AppendUvarint(dst, w.Committed)
}

func (w *welcome) decode(b []byte) error {
	r := reader{b: b}
	w.Term, w.PID = r.uvarint(), r.uvarint()
	r.fixed(w.Database[:])
	w.Committed = r.uvarint()
	return r.err()
}
