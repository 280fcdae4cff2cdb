package party

import (
	"fmt"
	"os"
	"strings"

	"github.com/gofrs/flock"
)

// leaderLock is the lock whose holder leads: a flock on a file that is never
// written, read or removed. The kernel frees it when the process dies. Names of
// subscriptions have locks of the same kind, whose files their holder may remove.
type leaderLock struct{ f *flock.Flock }

// tryLock takes the lock if nobody has it. It does not wait.
func tryLock(path string) (*leaderLock, bool, error) {
	f := flock.New(path)
	ok, err := f.TryLock()
	if err != nil {
		return nil, false, fmt.Errorf("lock %s: %w", path, err)
	}
	if !ok {
		return nil, false, nil
	}
	// Somebody may have removed the file and another process made a new one,
	// and locked that: then this lock excludes nobody.
	held, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && os.SameFile(held, there) {
			return &leaderLock{f}, true, nil
		}
	}
	if uerr := f.Unlock(); uerr != nil {
		return nil, false, fmt.Errorf("unlock %s: %w", path, uerr)
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, false, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, false, nil
}

func (l *leaderLock) unlock() error { return l.f.Unlock() }

// heldHere recognises Pebble's error for a lock that another handle of this
// process holds, which has no type.
func heldHere(err error) bool { return strings.Contains(err.Error(), "lock held by current process") }
