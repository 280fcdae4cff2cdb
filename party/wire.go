package party

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Subjects. A leader's server lives for one term, so they carry none.
const (
	subjectWrite = "party.write" // bundles of commands, straight to the sequencer
	subjectAsk   = "party.ask"   // all else, to a few workers
)

// Every message begins with these three bytes.
const (
	wireMagic   = 'P'
	wireVersion = 1
)

type msgType byte

const (
	// Requests.
	msgHello  msgType = iota + 1 // helloRequest → msgWelcome
	msgWrite                     // writeRequest → msgAnswers
	msgRead                      // keys → msgValues
	msgStatus                    // → msgStatusReply
	msgPart                      // uploadPart: a piece of a request that is too large → msgAck, or the whole request's reply
	msgPull                      // pullRequest: a piece of a reply that was too large → msgPiece
	// Replies.
	msgWelcome
	msgAnswers
	msgValues
	msgStatusReply
	msgAck
	msgPiece
	msgLarge // largeReply: the reply is too large for one message and has to be pulled
	msgError // code and text
)

// chunk is the largest piece of a request or reply in one NATS message, in
// bytes; what is larger goes in pieces, each asked for or answered before the
// next, so that nobody ever has more than one of them waiting in the server.
const chunk = 1 << 20

// Bounds of one message, so that a damaged length cannot take all memory.
const (
	maxRequest = apply.MaxBatch + 1<<20
	maxReply   = 1 << 40
)

var errWire = errors.New("party: malformed message")

func appendHeader(dst []byte, t msgType) []byte {
	return append(dst, wireMagic, wireVersion, byte(t))
}

// openMessage checks the header and returns type and body.
func openMessage(b []byte) (msgType, []byte, error) {
	if len(b) < 3 || b[0] != wireMagic {
		return 0, nil, fmt.Errorf("%w: not a party message", errWire)
	}
	if b[1] != wireVersion {
		return 0, nil, fmt.Errorf("%w: message version %d, this program knows version %d; run the same version of party in all processes",
			ErrIncompatible, b[1], wireVersion)
	}
	return msgType(b[2]), b[3:], nil
}

// reader takes values off a message body. After the first shortage all values
// are zero and err says so.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) err() error {
	if r.bad {
		return fmt.Errorf("%w: truncated", errWire)
	}
	return nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads the length of a list whose elements take at least a byte each. A
// decoder must not make room for so many at once: in memory they are larger.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) fixed(dst []byte) {
	if len(r.b) < len(dst) {
		r.bad, r.b = true, nil
		return
	}
	copy(dst, r.b)
	r.b = r.b[len(dst):]
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
