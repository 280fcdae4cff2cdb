package party

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/embednats"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// LogReader reads the log of a database as it lies on the disk, to look at: also
// while nobody leads, and from a directory that is damaged, as far as it can be
// read. It changes and locks nothing; at the end of the log it looks whether
// anybody listens at the leader's socket. To follow what commits, and to learn of
// what was lost, use Subscribe.
//
// It is used by one goroutine at a time.
type LogReader struct {
	dir  string
	r    *eventlog.Reader
	word *eventlog.Commit // nil: there is none that can be read
	from uint64
}

// LogEntry is what the log holds under one sequence number. It belongs to the
// caller.
type LogEntry struct {
	Seq    uint64
	Term   uint64    // of the leader that wrote it
	Time   time.Time // by that leader's clock; of a write never before that of the write before it
	Origin string    // identity of the handle whose write it is, in hexadecimal; "" for the record that begins a term
	Ops    []Op      // nil for the record that begins a term, and for an Ack of a named subscription
}

// OpenLog opens the log of the database in dir to read it from the sequence
// number from on; 0 is where it begins. The caller must Close it.
//
// The error is a *CompactedError if from has been removed, one that
// errors.Is(err, fs.ErrNotExist) if there is no log, ErrCorrupt if not even the
// beginning can be read, or what the file system said.
func OpenLog(dir string, from uint64) (*LogReader, error) {
	l := &LogReader{dir: dir, from: from}
	var err error
	if l.r, err = eventlog.OpenReader(vfs.Default, filepath.Join(dir, "party", "log"), from); err != nil {
		return nil, l.wrap(err)
	}
	if l.word, err = eventlog.ReadCommit(filepath.Join(dir, "party", "commit")); err != nil {
		l.word = nil // it is a hint, and may be what is damaged
	}
	return l, nil
}

func (l *LogReader) wrap(err error) error {
	var compacted *eventlog.CompactedError
	if errors.As(err, &compacted) {
		return &CompactedError{First: compacted.First}
	}
	return wrapError(fmt.Errorf("party: read the log of %s: %w", l.dir, err))
}

// Next returns the next entry, or io.EOF: while somebody leads, when it was the
// last that is committed, and then there may be more later; otherwise at the end
// of what is there, of which the next leader will make what it can.
//
// ErrCorrupt says that the log is damaged from there on, with the place, or that
// it ends before something that was durable. Other errors are those of OpenLog.
func (l *LogReader) Next() (LogEntry, error) {
	rec, ok, err := l.next()
	if err != nil {
		return LogEntry{}, l.wrap(err)
	}
	if !ok {
		return LogEntry{}, io.EOF
	}
	e := LogEntry{Seq: rec.Seq, Term: rec.Term, Time: rec.Time}
	if rec.Kind == eventlog.KindTerm {
		return e, nil
	}
	entry, err := apply.DecodeEntry(rec.Payload)
	if err != nil {
		return LogEntry{}, l.wrap(fmt.Errorf("entry %d: %w", rec.Seq, err))
	}
	e.Time, e.Origin = entry.Time, entry.Origin.String()
	if !entry.Cursor {
		ev, _ := newEvent(rec.Seq, &entry, &bounds{}, nil)
		e.Ops = ev.Ops
	}
	return e, nil
}

func (l *LogReader) next() (rec eventlog.Record, ok bool, err error) {
	if l.word == nil {
		return l.r.Next(math.MaxUint64)
	}
	// The word says what is durable, so that damage to it is not taken for the torn end that a
	// crash leaves.
	durable := l.word.Durable()
	if rec, ok, err = l.r.Next(durable); ok || err != nil {
		return rec, ok, err
	}
	if l.led() {
		return l.r.Next(l.word.Committed())
	}
	if rec, ok, err = l.r.Next(math.MaxUint64); ok || err != nil || max(l.r.Last(), l.from) >= durable {
		return rec, ok, err
	}
	return rec, false, fmt.Errorf("%w: it ends at %d, and was durable up to %d", eventlog.ErrCorrupt, l.r.Last(), durable)
}

// led tells whether somebody leads: whether anybody listens where the last leader said it does. The
// number of that process says nothing in a container, which has numbers of its own.
func (l *LogReader) led() bool {
	e, err := readEndpoint(l.dir)
	if err != nil {
		return false
	}
	return embednats.Listening(context.Background(), filepath.Join(l.dir, "party"), e.Address)
}

// Close closes the reader.
func (l *LogReader) Close() error {
	err := l.r.Close()
	if l.word != nil {
		err = errors.Join(err, l.word.Close())
	}
	return err
}
