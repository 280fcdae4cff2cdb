package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// What restoring refuses. Nothing was changed.
var (
	// ErrNotEmpty: a full backup goes into an empty or missing folder only.
	ErrNotEmpty = errors.New("snapshot: the folder is not empty")
	// ErrGap: the incremental backup does not continue what is in the folder.
	ErrGap = errors.New("snapshot: the incremental backup does not continue what is there")
)

// RestoreOptions are for Restore. Both fields are needed.
type RestoreOptions struct {
	Pebble *pebble.Options // Comparer and Merger of the database; FS of the folder
	Logger *slog.Logger
}

// Restore reads a backup from r, and nothing behind it. A full one becomes a new
// database in dir, which must be empty or missing; it is built beside and moved
// into place when it is whole and durable. An incremental one is read to its end
// first and then applied to dir, where the backups before it were restored and
// which nobody has opened since; if that is cut short, by a crash too, dir is at
// some sequence number in between and the same backup can be applied again. It
// returns the sequence number of the backup.
//
// The errors are ErrDamaged, ErrVersion, ErrNotEmpty, ErrGap, apply.ErrIncompatible
// for another comparer or merger, that of ctx, and what r and the file system
// said.
func Restore(ctx context.Context, r io.Reader, dir string, o RestoreOptions) (seq uint64, err error) {
	s, err := newStreamReader(r)
	if err != nil {
		return 0, err
	}
	if c := o.Pebble.Comparer.Name; c != s.head.Comparer {
		return 0, fmt.Errorf("%w: the backup has comparer %q, not %q", apply.ErrIncompatible, s.head.Comparer, c)
	}
	if m := o.Pebble.Merger.Name; m != s.head.Merger {
		return 0, fmt.Errorf("%w: the backup has merger %q, not %q", apply.ErrIncompatible, s.head.Merger, m)
	}
	if dir, err = resolve(dir); err != nil {
		return 0, err
	}
	if s.head.Incremental {
		err = restoreLog(ctx, s, dir, o)
	} else {
		err = restoreFull(ctx, s, dir, o)
	}
	if err != nil {
		return 0, err
	}
	return s.head.Seq, nil
}

// resolve follows symbolic links: what is renamed into place takes the place of a
// folder, not that of the link to it.
func resolve(dir string) (string, error) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return dir, nil
	}
	return filepath.EvalSymlinks(dir)
}

func restoreFull(ctx context.Context, s *streamReader, dir string, o RestoreOptions) (err error) {
	mode, err := checkEmpty(dir)
	if err != nil {
		return err
	}
	above := filepath.Dir(dir)
	if err := makeFolders(above); err != nil {
		return err
	}
	// Beside, so that the move is within one file system.
	beside, err := os.MkdirTemp(above, "."+filepath.Base(dir)+".restore-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(beside))
		}
	}()
	if err := build(ctx, s, beside, o); err != nil {
		return err
	}
	if err := os.Chmod(beside, mode); err != nil {
		return err
	}
	// Pebble has synced its files and the folder that they are in. A crash from
	// here on leaves the one beside, which nobody takes for dir, or dir whole.
	if err := os.Remove(dir); ignoreNotExist(err) != nil {
		return fmt.Errorf("put the restored database in place: %w", err)
	}
	if err := os.Rename(beside, dir); err != nil {
		return errors.Join(fmt.Errorf("put the restored database in place: %w", err), os.Mkdir(dir, mode))
	}
	return syncFolder(above)
}

// checkEmpty returns the mode that dir has or is to have.
func checkEmpty(dir string) (os.FileMode, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0o755, nil
	case err != nil:
		return 0, err
	case len(entries) > 0:
		return 0, fmt.Errorf("%w: %s holds %s", ErrNotEmpty, dir, entries[0].Name())
	}
	info, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	return info.Mode().Perm(), nil
}

// build makes the state in the empty folder dir.
func build(ctx context.Context, s *streamReader, dir string, o RestoreOptions) (err error) {
	var id eventlog.ID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	from := apply.Lineage{Database: s.head.Database, Seq: s.head.Seq}
	to, err := apply.NewRestorer(dir, o.Pebble, o.Logger, id, from, s.head.Time)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	for _, c := range s.head.Cursors {
		if err := to.Cursor(c); err != nil {
			return err
		}
	}
	err = s.each(ctx, func(b []byte) (rest []byte, err error) {
		p, rest, err := s.pair(b)
		if err == nil {
			err = to.Set(p.Key, p.Value)
		}
		return rest, err
	})
	if err != nil {
		return err
	}
	return to.Finish(s.head.Seq)
}

// each calls item with what is left of each chunk, to take one item off.
func (s *streamReader) each(ctx context.Context, item func(b []byte) (rest []byte, err error)) error {
	for {
		b, ok, err := s.next()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !ok {
			return err
		}
		for len(b) > 0 {
			if b, err = item(b); err != nil {
				return err
			}
		}
	}
}

func restoreLog(ctx context.Context, s *streamReader, dir string, o RestoreOptions) (err error) {
	if _, err := os.Stat(filepath.Join(dir, "party", "log")); err == nil {
		return fmt.Errorf("%w: %s was opened", ErrGap, dir)
	}
	there, err := Exists(o.Pebble.FS, dir)
	if err == nil && !there {
		err = fmt.Errorf("%w: %s holds no database", ErrGap, dir)
	}
	if err != nil {
		return err
	}
	to, err := apply.OpenRestorer(dir, o.Pebble, o.Logger)
	if errors.Is(err, apply.ErrNotRestored) {
		return fmt.Errorf("%w: %w", ErrGap, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	switch from := to.Lineage(); {
	case from.Database != s.head.Database:
		return fmt.Errorf("%w: it is of database %s, and there was restored one of %s", ErrGap, s.head.Database, from.Database)
	case from.Seq < s.head.Since || from.Seq > s.head.Seq:
		return fmt.Errorf("%w: it has %d to %d, and there was restored up to %d", ErrGap, s.head.Since+1, s.head.Seq, from.Seq)
	}
	// To its end before anything of it is applied: what was applied cannot be
	// taken back.
	spool, err := os.CreateTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".restore-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close(), os.Remove(spool.Name())) }()
	w, err := newStreamWriter(spool, &s.head, chunkEntries)
	if err != nil {
		return err
	}
	err = s.each(ctx, func(b []byte) ([]byte, error) {
		seq, payload, rest, err := s.entry(b)
		if err != nil {
			return nil, err
		}
		w.entry(seq, payload)
		if w.full() {
			err = w.flush()
		}
		return rest, err
	})
	if err == nil {
		err = w.end(s.head.Seq)
	}
	if err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	again, err := newStreamReader(spool)
	if err != nil {
		return err
	}
	have := to.Lineage().Seq
	err = again.each(ctx, func(b []byte) ([]byte, error) {
		seq, payload, rest, err := again.entry(b)
		if err == nil && seq > have {
			err = to.Entry(seq, payload)
		}
		return rest, err
	})
	if err != nil {
		return err
	}
	return to.Finish(s.head.Seq)
}

// Exists tells whether there is a Pebble database in dir. Pebble itself makes the
// folder when it looks.
func Exists(fs vfs.FS, dir string) (bool, error) {
	if _, err := os.Stat(dir); err != nil {
		return false, ignoreNotExist(err)
	}
	d, err := pebble.Peek(dir, fs)
	if err != nil {
		return false, err
	}
	return d.Exists, nil
}

// makeFolders is MkdirAll with names that a power cut leaves: or it would take the
// folders with all that comes into them.
func makeFolders(path string) error {
	if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
		return err
	}
	if err := makeFolders(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes names in a folder durable.
func syncFolder(path string) error {
	d, err := vfs.Default.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CheckStream reads a backup to its end and returns what it is. The errors are
// those of Restore that have to do with the stream.
func CheckStream(ctx context.Context, r io.Reader) (Head, error) {
	s, err := newStreamReader(r)
	if err != nil {
		return Head{}, err
	}
	err = s.each(ctx, func(b []byte) (rest []byte, err error) {
		if s.head.Incremental {
			_, _, rest, err = s.entry(b)
		} else {
			_, rest, err = s.pair(b)
		}
		return rest, err
	})
	return s.head, err
}
