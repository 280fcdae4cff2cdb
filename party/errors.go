package party

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/nospace"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// What a call can fail with, besides the error of its context, what the file
// system said, and pebble.ErrNotFound. Test with errors.Is.
var (
	// ErrClosed: the handle was closed before or during the call. A write that
	// was under way may have been applied or not: unknown.
	ErrClosed = errors.New("party: closed")

	// ErrLeaderLost: with Options.NoRetry, the leader went away with the call
	// under way. What became of a write is unknown: it may be in the log, and
	// then every later leader has it, or not. Without NoRetry a call is never
	// failed with this; it is sent again to the next leader and takes effect
	// once.
	ErrLeaderLost = errors.New("party: leader lost")

	// ErrUnknownOutcome: a write had been sent to a leader that went away, and what
	// became of it cannot be told: nobody could lead after that, or so many other
	// handles wrote since (apply.MaxOrigins, 1024) that the next leader has
	// forgotten. It was not applied again.
	ErrUnknownOutcome = errors.New("party: outcome of the write is unknown")

	// ErrSnapshotLost: an iterator with Strict lost its point in time: the leader
	// that held it went away, or the iterator did not move for a minute.
	ErrSnapshotLost = errors.New("party: point in time lost")

	// ErrCompacted: what every CompactedError is.
	ErrCompacted = errors.New("party: compacted")

	// ErrTruncated: what every TruncatedError is.
	ErrTruncated = errors.New("party: truncated")

	// ErrCursorLost: the name of a subscription was dropped while it had it.
	// Nothing was acknowledged.
	ErrCursorLost = errors.New("party: cursor lost")

	// ErrCursors: there are MaxCursors named subscriptions already; drop one.
	ErrCursors = errors.New("party: too many named subscriptions")

	// ErrTooLarge: the batch is longer than MaxBatch. It was not applied.
	ErrTooLarge = errors.New("party: too large")

	// ErrReservedKey: the key begins with the prefix that party keeps its own
	// bookkeeping under. The write was not applied.
	ErrReservedKey = errors.New("party: reserved key")

	// ErrUnsupported: a batch holds an operation other than Set, Delete,
	// SingleDelete, DeleteRange and Merge, or is malformed. It was not applied.
	ErrUnsupported = errors.New("party: unsupported operation")

	// ErrDiskFull: there is no room for the write, on the disk or in the quota of the
	// leader's user. It was not applied. Reads go on, and writes resume when there is
	// room.
	ErrDiskFull = errors.New("party: disk full")

	// ErrIncompatible: another comparer or merger than the database was made
	// with, or a database written by a newer version.
	ErrIncompatible = errors.New("party: incompatible")

	// ErrCorrupt: a file is damaged; the text names the file and, for the log,
	// the offset and the sequence number. No key was changed.
	ErrCorrupt = errors.New("party: corrupt")

	// ErrNotEmpty: a full backup can be restored into an empty or missing folder
	// only. Nothing was changed.
	ErrNotEmpty = errors.New("party: the folder is not empty")

	// ErrBackupGap: an incremental backup does not continue what is in the folder.
	// Nothing was changed.
	ErrBackupGap = errors.New("party: the incremental backup does not continue what is there")

	// ErrInUse: a program that does not use party has the database open.
	ErrInUse = errors.New("party: opened by a program that does not use party")

	// ErrNetworkFS: the directory is on a network file system, where file locks
	// and shared memory do not work between machines.
	ErrNetworkFS = errors.New("party: network file system")
)

// MaxBatch is the longest batch, in bytes of its representation (keys, values
// and a few bytes for each operation), that a write may have, in every role:
// 256 MiB. Values are read back whole, so it also bounds those.
const MaxBatch = apply.MaxBatch

// CompactedError: retention has removed from the log what a subscription would
// have had to deliver next. errors.Is(err, ErrCompacted) holds. Subscribing from
// First goes on; what lies before must be learned by reading the database.
type CompactedError struct {
	First uint64 // the first sequence number that is still there
}

// Error names the first sequence number that is still there.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("party: compacted: the log starts at sequence number %d now", e.First)
}

// Is reports whether target is ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// TruncatedError: a subscription, or an incremental backup, asked for a number that
// can only be asked for by who has seen entries that are gone: they were written with NoSync, and a
// power cut took them before they were durable. errors.Is(err, ErrTruncated)
// holds. Who undoes what it made of the events after Last can subscribe from
// Last+1; a backup that has them needs a full one to follow. It is also the answer
// to a subscription from a number that was never given out yet.
type TruncatedError struct {
	Last uint64 // what was seen up to here is in the log
}

// Error names the last sequence number that was kept.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("party: truncated: what was committed after sequence number %d was lost before it was durable", e.Last)
}

// Is reports whether target is ErrTruncated.
func (e *TruncatedError) Is(target error) bool { return target == ErrTruncated }

// wrapError puts what a lower package or the file system said into this
// package's terms, keeping the cause.
func wrapError(err error) error {
	var sentinel error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, apply.ErrCursors):
		sentinel = ErrCursors
	case errors.Is(err, apply.ErrReservedKey):
		sentinel = ErrReservedKey
	case errors.Is(err, apply.ErrTooLarge), errors.Is(err, eventlog.ErrTooLarge):
		sentinel = ErrTooLarge
	case errors.Is(err, apply.ErrUnsupported), errors.Is(err, apply.ErrInvalidBatch):
		sentinel = ErrUnsupported
	case errors.Is(err, apply.ErrIncompatible), errors.Is(err, eventlog.ErrVersion),
		errors.Is(err, snapshot.ErrVersion):
		sentinel = ErrIncompatible
	case errors.Is(err, apply.ErrCorrupt), errors.Is(err, eventlog.ErrCorrupt), errors.Is(err, eventlog.ErrForeign),
		errors.Is(err, snapshot.ErrDamaged), pebble.IsCorruptionError(err):
		sentinel = ErrCorrupt
	case errors.Is(err, eventlog.ErrCompacted):
		sentinel = ErrCompacted
	case errors.Is(err, snapshot.ErrNotEmpty):
		sentinel = ErrNotEmpty
	case errors.Is(err, snapshot.ErrGap):
		sentinel = ErrBackupGap
	case nospace.Is(err):
		sentinel = ErrDiskFull
	default:
		return err
	}
	if errors.Is(err, sentinel) {
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}
