package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// Backup writes the keys and values of a view, in order and without reserved ones,
// and its named cursors.
// cmp is the comparer of the database. It ends early when ctx does.
func Backup(ctx context.Context, w io.Writer, v *apply.View, cmp *pebble.Comparer, merger string) (err error) {
	h := Head{Database: v.ID(), Seq: v.Seq(), Time: v.Time(), Comparer: cmp.Name, Merger: merger}
	if h.Cursors, err = v.Cursors(); err != nil {
		return err
	}
	s, err := newStreamWriter(w, &h, chunkPairs)
	if err != nil {
		return err
	}
	it, err := NewIter(v, Bounds{}, cmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.Value()
		if err != nil {
			return err
		}
		s.pair(it.Key(), value)
		if s.full() {
			if err := errors.Join(ctx.Err(), s.flush()); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return s.end(h.Seq)
}

// TruncatedError says that an incremental backup has nothing to continue: a power
// cut took what the backup before has behind Last.
type TruncatedError struct{ Last uint64 }

// Error names the last sequence number that the log has kept.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("snapshot: what was logged after %d was lost before it was durable", e.Last)
}

// BackupLog writes the log's entries behind h.Since up to h.Seq, which must be
// committed; r stands at the first of them. It ends early when ctx does.
//
// A *TruncatedError says that the state at h.Since has entries that were lost: with
// those that took their place it would become a state that never was.
func BackupLog(ctx context.Context, w io.Writer, r *eventlog.Reader, h Head) error {
	h.Incremental, h.Database = true, r.ID()
	s, err := newStreamWriter(w, &h, chunkEntries)
	if err != nil {
		return err
	}
	for last := h.Since; last < h.Seq; {
		rec, ok, err := r.Next(h.Seq)
		if err == nil && !ok {
			err = fmt.Errorf("%w: the log ends early, after %d", apply.ErrCorrupt, last)
		}
		if err != nil {
			return err
		}
		if rec.Kind == eventlog.KindTerm && rec.Prev < last {
			return &TruncatedError{Last: rec.Prev}
		}
		last = rec.Seq
		if rec.Kind != eventlog.KindEntry {
			continue
		}
		s.entry(rec.Seq, rec.Payload)
		if s.full() {
			if err := errors.Join(ctx.Err(), s.flush()); err != nil {
				return err
			}
		}
	}
	return s.end(h.Seq)
}
