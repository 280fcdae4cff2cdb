package party

import (
	"encoding/binary"
	"fmt"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// writeRequest is a bundle of commands of one origin, in ascending order.
type writeRequest struct {
	// Database is what the sender takes the receiver for: bundles leave before that has said hello.
	Database eventlog.ID
	Origin   apply.Origin
	Conn     uint64
	ID       uint64 // of the bundle, to match the reply
	Low      uint64 // see apply.Command
	// Commands share Origin and Low.
	Commands []apply.Command
}

func (w *writeRequest) appendHead(dst []byte, count int) []byte {
	dst = appendHeader(dst, msgWrite)
	dst = append(dst, w.Database[:]...)
	dst = append(dst, w.Origin[:]...)
	dst = binary.AppendUvarint(dst, w.Conn)
	dst = binary.AppendUvarint(dst, w.ID)
	dst = binary.AppendUvarint(dst, w.Low)
	return binary.AppendUvarint(dst, uint64(count))
}

// decode fills w; its commands point into b.
func (w *writeRequest) decode(b []byte) error {
	r := reader{b: b}
	r.fixed(w.Database[:])
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
