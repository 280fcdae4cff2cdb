package party

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// Backup writes all keys and values, and where named subscriptions stand, to w as
// they are at one sequence number, which it returns, as a stream for Restore. It is made from a snapshot, in this
// process, whatever its role: others go on writing, and the leader has no more to
// do than for a snapshot. Leaders may come and go.
//
// The stream carries checksums, and its end says that it is whole: one that was
// cut short, because of an error here too, is refused by Restore. w is written
// from this goroutine, at most a quarter of a megabyte at a time; it is neither
// flushed nor synced nor closed. While it blocks, ctx and Close of the handle do not
// end the call, but Close does not wait for it, and nothing is written after that. The errors are those of NewSnapshot, ErrCorrupt when a
// table is damaged, that of ctx, ErrClosed, and what w said.
func (db *DB) Backup(ctx context.Context, w io.Writer) (seq uint64, err error) {
	s, err := db.NewSnapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := db.during(ctx)
	defer cancel()
	if err := s.backup(ctx, w); err != nil {
		return 0, db.backupError(ctx, err)
	}
	return s.Seq(), nil
}

// backup writes s to w. The state is read by another goroutine: w may block for as
// long as it likes, and must not keep the snapshot from being closed.
func (s *Snapshot) backup(ctx context.Context, w io.Writer) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	from, to := io.Pipe()
	defer context.AfterFunc(ctx, func() { _ = to.CloseWithError(context.Cause(ctx)) })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.gate.exit()
		o := s.replicas.db.opts.Pebble
		_ = to.CloseWithError(snapshot.Backup(ctx, to, s.view, o.Comparer, o.Merger.Name))
	}()
	err := relay(ctx, w, from)
	_ = from.CloseWithError(err) // what is still to come nobody wants
	<-done
	return err
}

// relay writes what comes from r to w, and nothing more once ctx has ended.
func relay(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// BackupSince writes what was committed behind sequence number seq and returns
// up to which, as a stream that Restore applies on top of a backup up to seq: one
// that Backup or BackupSince of the same database returned seq for. It reads the
// log's files and asks the leader for nothing. What it writes is the log's
// entries, so it is the shorter the less was written since.
//
// What plain Pebble writes to the directory between two uses by party is in no log:
// take a full backup after it.
//
// The error is a *CompactedError when the log no longer has all that is needed, and
// a *TruncatedError when a power cut took, of writes with NoSync, what the backup up
// to seq has: take a full backup then. Else the errors are those of Backup.
func (db *DB) BackupSince(ctx context.Context, w io.Writer, seq uint64) (upTo uint64, err error) {
	// Once there is a leader its word is that of now.
	if _, err := db.route(ctx); err != nil {
		return 0, db.explain(err)
	}
	ctx, cancel := db.during(ctx)
	defer cancel()
	word, err := eventlog.ReadCommit(db.path("commit"))
	if err != nil {
		return 0, fmt.Errorf("party: backup: %w", wrapError(err))
	}
	upTo = max(word.Committed(), db.known.Load())
	if err := word.Close(); err != nil {
		return 0, err
	}
	if seq > upTo {
		return 0, fmt.Errorf("party: backup from %d on: the log ends at %d", seq+1, upTo)
	}
	r, err := eventlog.OpenReader(db.opts.Pebble.FS, db.path("log"), seq+1)
	if err != nil {
		return 0, db.backupError(ctx, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := snapshot.Head{
		Since: seq, Seq: upTo, Time: time.Unix(0, 0),
		Comparer: db.opts.Pebble.Comparer.Name, Merger: db.opts.Pebble.Merger.Name,
	}
	if err := snapshot.BackupLog(ctx, w, r, h); err != nil {
		return 0, db.backupError(ctx, err)
	}
	return upTo, nil
}

// during returns a context that ends with ctx or when the handle closes.
func (db *DB) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-db.ended:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// backupError says why a backup ended.
func (db *DB) backupError(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	var compacted *eventlog.CompactedError
	if errors.As(err, &compacted) {
		return &CompactedError{First: compacted.First}
	}
	var truncated *snapshot.TruncatedError
	if errors.As(err, &truncated) {
		return &TruncatedError{Last: truncated.Last}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("party: backup: %w", wrapError(err))
}

// Restore makes a database in dir of a stream that Backup wrote, or applies one
// that BackupSince wrote on top of what was restored there before, and returns
// the sequence number that the database is at. It reads no further than the end of
// the stream, so several may follow each other in one file.
//
// A full backup goes into an empty or missing directory, or the one that a symbolic
// link leads to: it is built beside and renamed into place when it is whole and
// durable, so dir has all of it or nothing. (A crash can leave a folder .<name>.restore-* beside dir, which may be
// removed.) The new database has an identity of its own and the keys of the old
// one; sequence numbers go on behind the one that is returned.
// Named subscriptions stand where they stood; there is no log of what they had not
// acknowledged, so they begin with a *CompactedError.
//
// An incremental backup is applied where the backups before it were restored and
// which has not been opened since. It is read to its end before anything of it is
// applied. If applying it is cut short, dir is as the old database was at some
// number in between, and the same stream can be applied again. While that goes on
// it stands in a file .<name>.restore-* beside dir, which a crash can leave too.
//
// The errors are ErrCorrupt for a stream that is damaged or cut short, with where,
// ErrIncompatible for one of a newer version or another comparer or merger,
// ErrNotEmpty, ErrBackupGap, ErrInUse, ErrDiskFull, that of ctx, and what r and
// the file system said. Then nothing is left, but after ErrDiskFull or the end of
// ctx as an incremental backup is applied, as said above.
func Restore(ctx context.Context, r io.Reader, dir string) (seq uint64, err error) {
	return RestoreWith(ctx, r, dir, nil)
}

// RestoreWith is Restore for a database with a Comparer or Merger of its own, or
// other options of Pebble's: o are the Options that it will be opened with.
func RestoreWith(ctx context.Context, r io.Reader, dir string, o *Options) (seq uint64, err error) {
	opts, err := prepare(o)
	if err != nil {
		return 0, err
	}
	if dir, err = filepath.Abs(dir); err == nil {
		seq, err = snapshot.Restore(ctx, r, dir, snapshot.RestoreOptions{Pebble: opts.Pebble, Logger: opts.Logger})
	}
	switch {
	case err == nil:
		return seq, nil
	case isLocked(err):
		return 0, fmt.Errorf("party: restore to %s: %w: %w", dir, ErrInUse, err)
	}
	return 0, fmt.Errorf("party: restore to %s: %w", dir, wrapError(err))
}

// VerifyBackup reads a backup from r to its end and returns its sequence number
// and, for an incremental one, that of the backup which it continues, else 0. The
// errors are those of Restore that have to do with the stream.
func VerifyBackup(ctx context.Context, r io.Reader) (seq, since uint64, err error) {
	h, err := snapshot.CheckStream(ctx, r)
	if err != nil {
		return 0, 0, fmt.Errorf("party: verify backup: %w", wrapError(err))
	}
	return h.Seq, h.Since, nil
}
