package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// folder is a replica's place on disk: root/<id>/, with the file lock in it,
// whose flock is held while the replica lives. The kernel frees that when the
// process dies, and Sweep removes what is left.
type folder struct {
	path string
	lock *flock.Flock
}

const lockName = "lock"

// newFolder makes a folder and locks it. Nothing is put into one that is not
// locked: Sweep would take it away, and may do so between the two. Then another is
// made, until ctx ends: each time a sweep has come further.
func newFolder(ctx context.Context, root string) (*folder, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("lock a new folder in %s: %w", root, context.Cause(ctx))
		}
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			return nil, err
		}
		f := &folder{path: filepath.Join(root, hex.EncodeToString(id[:]))}
		if err := os.Mkdir(f.path, 0o700); err != nil {
			return nil, err
		}
		lock, ok, err := lockFile(filepath.Join(f.path, lockName))
		if ok {
			f.lock = lock
			return f, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, os.RemoveAll(f.path))
		}
	}
}

// lockFile takes the flock on path if nobody has it, creating the file. It does
// not wait. The lock is on the file that is there now, not on one that was removed.
func lockFile(path string) (_ *flock.Flock, ok bool, err error) {
	l := flock.New(path)
	if ok, err := l.TryLock(); err != nil || !ok {
		return nil, false, errors.Join(err, l.Close())
	}
	held, err := l.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && os.SameFile(held, there) {
			return l, true, nil
		}
	}
	return nil, false, errors.Join(err, l.Close())
}

// remove removes the folder and gives up the lock. What cannot be removed is left
// to Sweep.
func (f *folder) remove() error {
	err := removeLocked(f.path, f.lock)
	if err != nil {
		return fmt.Errorf("remove replica %s: %w", f.path, err)
	}
	return nil
}

// removeLocked removes a folder whose lock is held, and lets go of that.
func removeLocked(path string, lock *flock.Flock) error {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if e.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(path, e.Name())))
		}
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	// Before the lock is let go: otherwise another process could lock the file in
	// between and take the folder for its own. Windows removes no open file, so
	// there it is removed after, and only if nobody has opened it since.
	lockPath := filepath.Join(path, lockName)
	removed := os.Remove(lockPath)
	err = lock.Close()
	if removed != nil {
		removed = ignoreNotExist(os.Remove(lockPath))
	}
	var gone error
	for range 10 { // a sweep may have come in between and left again
		if gone = ignoreNotExist(os.Remove(path)); gone == nil {
			break
		}
		if _, taken := os.Stat(lockPath); taken == nil {
			gone = nil // by a sweep, or by the maker of the folder: it is theirs now
			break
		}
		// Without a lock only a leader puts something there: a checkpoint that was
		// asked for. What it still adds is for Reclaim.
		gone = os.RemoveAll(path)
	}
	return errors.Join(err, removed, gone)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes the replicas under root, the folder that holds them all, whose
// processes are gone, and returns how many. It never touches one that is alive
// or being made. Any number of processes may sweep at once. It ends early when
// ctx does.
func Sweep(ctx context.Context, root string) (removed int, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return 0, ignoreNotExist(err)
	}
	var errs []error
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		if !isID(e.Name()) || !e.IsDir() {
			continue // none of ours
		}
		path := filepath.Join(root, e.Name())
		lock, ok, err := lockFile(filepath.Join(path, lockName))
		if ok {
			if err = removeLocked(path, lock); err == nil {
				removed++
			}
		}
		if ignoreNotExist(err) != nil {
			errs = append(errs, fmt.Errorf("sweep replica %s: %w", path, err))
		}
	}
	return removed, errors.Join(errs...)
}

// Reclaim removes the folder of replica id under root if its process is gone or has
// given it up. A leader calls it when it has put a checkpoint there: the process may
// have removed the folder meanwhile, and would not come back for it.
func Reclaim(root, id string) error {
	path := filepath.Join(root, id)
	lock, ok, err := lockFile(filepath.Join(path, lockName))
	if ok {
		err = removeLocked(path, lock)
	}
	if err = ignoreNotExist(err); err != nil {
		return fmt.Errorf("reclaim replica %s: %w", path, err)
	}
	return nil
}

// isID tells whether name is that of a replica's folder.
func isID(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == 16
}

// CheckpointPath returns where under root the checkpoint goes that a process
// asks for: attempt n of replica id. It fails unless that replica's process has
// made its folder. Neither has to be believed: they may come over a socket.
func CheckpointPath(root, id string, n uint64) (string, error) {
	if !isID(id) {
		return "", fmt.Errorf("%w: replica %.40q", ErrMalformed, id)
	}
	path := filepath.Join(root, id)
	if _, err := os.Stat(filepath.Join(path, lockName)); err != nil {
		return "", fmt.Errorf("replica %s: %w", id, err)
	}
	return filepath.Join(path, fmt.Sprint(n)), nil
}
