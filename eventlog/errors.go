package eventlog

import (
	"errors"
	"fmt"
)

// Errors of opening a log, a reader or a commit word.
var (
	// ErrCorrupt is what every CorruptError is: durable bytes that are not what was written.
	ErrCorrupt = errors.New("eventlog: corrupt")
	// ErrVersion means that a newer version of this software wrote the file. Nothing was changed; upgrade to open it.
	ErrVersion = errors.New("eventlog: file of a newer version")
	// ErrForeign means that the file is none of ours, or that it belongs to another database. Nothing was changed.
	ErrForeign = errors.New("eventlog: foreign file")
	// ErrCompacted is what every CompactedError is: retention has deleted the records asked for.
	ErrCompacted = errors.New("eventlog: compacted")
)

// Errors of appending.
var (
	// ErrTooLarge means that an entry is longer than MaxEntry. Nothing was appended.
	ErrTooLarge = errors.New("eventlog: entry too large")
	// ErrNoTerm means that Append came before StartTerm. Nothing was appended.
	ErrNoTerm = errors.New("eventlog: append before a term was started")
	// ErrFull means that the sequence numbers are used up. Nothing was appended.
	ErrFull = errors.New("eventlog: sequence numbers used up")
	// ErrFailed means that the log failed and takes nothing more until it is opened again. What the call that failed
	// was to append may or may not be there then; what later calls were to append is not. It wraps the first cause.
	ErrFailed = errors.New("eventlog: failed, open it again")
	// ErrClosed means that the log or the reader is closed. Nothing was appended.
	ErrClosed = errors.New("eventlog: closed")
)

// CorruptError says where a log is corrupt. errors.Is(err, ErrCorrupt) holds.
type CorruptError struct {
	File   string // path of the file
	Offset int64  // of the first bad byte range, in bytes
	Seq    uint64 // first sequence number that cannot be read, 0: unknown
	Reason string
}

// Error names file, offset, sequence number and reason.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("eventlog: corrupt: %s at offset %d, sequence number %d: %s", e.File, e.Offset, e.Seq, e.Reason)
}

// Is reports whether target is ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// CompactedError says that retention has deleted the records asked for. errors.Is(err, ErrCompacted) holds.
type CompactedError struct {
	First uint64 // all that comes from here on is still there
}

// Error names the first sequence number that is left.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("eventlog: compacted: the log starts at sequence number %d", e.First)
}

// Is reports whether target is ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }
