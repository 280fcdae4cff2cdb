package party

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
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

// writeRequest is a bundle of commands of one origin, in ascending order.
type writeRequest struct {
	Origin apply.Origin
	Conn   uint64
	ID     uint64 // of the bundle, to match the reply
	Low    uint64 // see apply.Command
	// Commands share Origin and Low.
	Commands []apply.Command
}

func (w *writeRequest) appendHead(dst []byte, count int) []byte {
	dst = appendHeader(dst, msgWrite)
	dst = append(dst, w.Origin[:]...)
	dst = binary.AppendUvarint(dst, w.Conn)
	dst = binary.AppendUvarint(dst, w.ID)
	dst = binary.AppendUvarint(dst, w.Low)
	return binary.AppendUvarint(dst, uint64(count))
}

// decode fills w; its commands point into b.
func (w *writeRequest) decode(b []byte) error {
	r := reader{b: b}
	r.fixed(w.Origin[:])
	w.Conn, w.ID, w.Low = r.uvarint(), r.uvarint(), r.uvarint()
	n := r.count()
	if r.bad {
		return r.err()
	}
	w.Commands = make([]apply.Command, 0, min(n, bundleCalls))
	rest := r.b
	for i := range n {
		c := apply.Command{Origin: w.Origin, Low: w.Low}
		var err error
		if rest, err = apply.DecodeCommand(rest, &c); err != nil {
			return fmt.Errorf("%w: command %d: %w", errWire, i, err)
		}
		w.Commands = append(w.Commands, c)
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errWire, len(rest))
	}
	return nil
}

// appendAnswers encodes the reply to bundle id: the committed sequence number
// and an answer for each command.
func appendAnswers(dst []byte, id, committed uint64, answers []apply.Answer) []byte {
	dst = appendHeader(dst, msgAnswers)
	dst = binary.AppendUvarint(dst, id)
	dst = binary.AppendUvarint(dst, committed)
	dst = binary.AppendUvarint(dst, uint64(len(answers)))
	for i := range answers {
		a := &answers[i]
		dst = append(dst, byte(a.Outcome))
		dst = binary.AppendUvarint(dst, a.Seq)
		if a.Outcome == apply.OutcomeRefused {
			dst = appendError(dst, a.Err)
		}
	}
	return dst
}

func decodeAnswers(b []byte) (id, committed uint64, answers []apply.Answer, err error) {
	r := reader{b: b}
	id, committed = r.uvarint(), r.uvarint()
	n := r.count()
	answers = make([]apply.Answer, 0, min(n, bundleCalls))
	for range n {
		a := apply.Answer{Outcome: apply.Outcome(r.byte()), Seq: r.uvarint()}
		if a.Outcome == apply.OutcomeRefused {
			a.Err = r.error()
		}
		if r.bad {
			break
		}
		answers = append(answers, a)
	}
	return id, committed, answers, r.err()
}

// Keys and values: a list of strings, and a list of what became of each key.

// value is what a reply says of a key.
type value struct {
	mark  valueMark
	bytes []byte // of valuePresent
	err   error  // of valueError
}

type valueMark byte

const (
	valueAbsent  valueMark = iota
	valuePresent           // then the value
	valueError             // then the error
	valueLarge             // a large one that found no room in the reply: ask again
	valueLater             // not looked at, as the reply is full: ask again
)

func decodeKeys(b []byte) (id uint64, keys [][]byte, err error) {
	r := reader{b: b}
	id = r.uvarint()
	n := r.count()
	keys = make([][]byte, 0, min(n, bundleCalls))
	for range n {
		keys = append(keys, r.bytes())
		if r.bad {
			break
		}
	}
	return id, keys, r.err()
}

func decodeValues(b []byte) (id uint64, values []value, err error) {
	r := reader{b: b}
	id = r.uvarint()
	n := r.count()
	values = make([]value, 0, min(n, bundleCalls))
	for range n {
		v := value{mark: valueMark(r.byte())}
		switch v.mark {
		case valueAbsent, valueLarge, valueLater:
		case valuePresent:
			v.bytes = r.bytes()
		case valueError:
			v.err = r.error()
		default:
			return id, nil, fmt.Errorf("%w: mark %d of a value", errWire, v.mark)
		}
		if r.bad {
			break
		}
		values = append(values, v)
	}
	return id, values, r.err()
}

// Errors travel as a code, which keeps errors.Is working, and the text.
var wireErrors = []error{
	1:  ErrReservedKey,
	2:  ErrTooLarge,
	3:  ErrUnsupported,
	4:  ErrDiskFull,
	5:  ErrIncompatible,
	6:  ErrCorrupt,
	7:  errLost, // not the leader any more: send it to the next
	8:  errGone,
	9:  errWire,
	10: ErrSnapshotLost,
	11: ErrCursors,
}

// maxErrorText bounds the text of an error in a message, in bytes.
const maxErrorText = 400

func appendError(dst []byte, err error) []byte {
	err = wrapError(err)
	code := 0
	for i := 1; i < len(wireErrors); i++ {
		if errors.Is(err, wireErrors[i]) {
			code = i
			break
		}
	}
	dst = binary.AppendUvarint(dst, uint64(code))
	text := err.Error()
	if len(text) > maxErrorText {
		// It may quote a key of any length, and there may be one for each of many
		// commands; the reply has to fit a message.
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return appendBytes(dst, []byte(text))
}

func (r *reader) error() error {
	code, text := r.uvarint(), string(r.bytes())
	if code > 0 && code < uint64(len(wireErrors)) {
		return &remoteError{kind: wireErrors[code], text: text}
	}
	return &remoteError{text: text}
}

// remoteError is an error that the leader reported.
type remoteError struct {
	kind error // nil: none of ours
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

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

// leaderStatus is the leader's reply to msgStatus.
type leaderStatus struct {
	Term, PID, Committed, Applied, FirstSeq, Followers, Iterators uint64
}

func (s *leaderStatus) append(dst []byte) []byte {
	dst = appendHeader(dst, msgStatusReply)
	for _, v := range []uint64{s.Term, s.PID, s.Committed, s.Applied, s.FirstSeq, s.Followers, s.Iterators} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func (s *leaderStatus) decode(b []byte) error {
	r := reader{b: b}
	for _, v := range []*uint64{&s.Term, &s.PID, &s.Committed, &s.Applied, &s.FirstSeq, &s.Followers, &s.Iterators} {
		*v = r.uvarint()
	}
	return r.err()
}

// A request that is longer than chunk is sent as parts of the same upload.
type uploadPart struct {
	Origin       apply.Origin
	Conn, ID     uint64
	Total, Start uint64 // length of the whole, where this part begins
	Data         []byte
}

func (p *uploadPart) append(dst []byte) []byte {
	dst = appendHeader(dst, msgPart)
	dst = append(dst, p.Origin[:]...)
	for _, v := range []uint64{p.Conn, p.ID, p.Total, p.Start} {
		dst = binary.AppendUvarint(dst, v)
	}
	return append(dst, p.Data...)
}

func (p *uploadPart) decode(b []byte) error {
	r := reader{b: b}
	r.fixed(p.Origin[:])
	for _, v := range []*uint64{&p.Conn, &p.ID, &p.Total, &p.Start} {
		*v = r.uvarint()
	}
	p.Data = r.b
	if r.bad || p.Total > maxRequest || p.Start > p.Total || uint64(len(p.Data)) > p.Total-p.Start {
		return fmt.Errorf("%w: bad part", errWire)
	}
	return nil
}

// largeReply announces a reply that has to be pulled in pieces.
type largeReply struct{ ID, Total uint64 }

func (l *largeReply) append(dst []byte) []byte {
	dst = appendHeader(dst, msgLarge)
	dst = binary.AppendUvarint(dst, l.ID)
	return binary.AppendUvarint(dst, l.Total)
}

func (l *largeReply) decode(b []byte) error {
	r := reader{b: b}
	l.ID, l.Total = r.uvarint(), r.uvarint()
	if l.Total > maxReply {
		r.bad = true
	}
	return r.err()
}

// pullRequest asks for the piece of reply ID that begins at Start. At the end of
// the reply (Start == its length) it lets the leader forget it.
type pullRequest struct{ ID, Start uint64 }

func (p *pullRequest) append(dst []byte) []byte {
	dst = appendHeader(dst, msgPull)
	dst = binary.AppendUvarint(dst, p.ID)
	return binary.AppendUvarint(dst, p.Start)
}

func (p *pullRequest) decode(b []byte) error {
	r := reader{b: b}
	p.ID, p.Start = r.uvarint(), r.uvarint()
	return r.err()
}
