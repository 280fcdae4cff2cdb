package party

import (
	"encoding/binary"
	"errors"
	"strings"
)

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
