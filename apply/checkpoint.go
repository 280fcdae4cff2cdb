package apply

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrStopped: the machine was stopped while the work was under way.
var ErrStopped = errors.New("apply: stopped")

// Checkpoint makes a hard-linked copy of what Pebble has flushed in dir, which
// must not exist, for OpenFollower: an exact prefix of the log that ends at or
// behind what Durable returned before. It takes milliseconds, plus some
// microseconds for each table; where the file system cannot link it copies them.
// Stop ends it early. After an error nothing is left in dir; after ErrStopped that may
// be so only once the machine is closed.
//
// What it writes is not synced: a follower ends with its process.
func (m *Machine) Checkpoint(dir string) error {
	if err := m.Full(); err != nil {
		return err
	}
	fs := m.store.fs
	if err := m.whenReady(fs.away.stop); err != nil {
		return err
	}
	// It copies the options file and the manifest by their names.
	if err := fs.settling.waitUnless(fs.away.stop); err != nil {
		return err
	}
	// Of a manifest that Pebble has only read it copies nothing.
	if !m.store.manifest.Load() {
		if err := m.Flush(fs.away.stop); err != nil {
			return err
		}
		if !m.store.manifest.Load() {
			return ErrStopped
		}
	}
	return m.store.callUnless(fs.away.stop, func() error {
		fs.away.begin(dir, fs.PathDir(dir))
		defer fs.away.end(dir)
		return m.store.db.Checkpoint(dir)
	})
}

// away knows the folders that checkpoints are being written to. To the guardFS
// they are not the state: there a full disk is the failure of the checkpoint and
// nothing that Pebble has to survive, and nothing has to be durable.
type away struct {
	stop  chan struct{} // closed when the machine was stopped: no checkpoint goes on
	once  sync.Once     // to close it
	count atomic.Int64  // of dirs; usually zero, so that asking costs nothing

	mu   sync.Mutex
	dirs map[string]string // to the folder above
}

func (a *away) begin(dir, above string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dirs == nil {
		a.dirs = make(map[string]string)
	}
	a.dirs[dir] = above
	a.count.Store(int64(len(a.dirs)))
}

func (a *away) end(dir string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.dirs, dir)
	a.count.Store(int64(len(a.dirs)))
}

// has tells whether name belongs to a checkpoint.
func (a *away) has(name string) bool {
	if a.count.Load() == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for dir, above := range a.dirs {
		if name == dir || name == above || strings.HasPrefix(name, dir) && (name[len(dir)] == '/' || name[len(dir)] == '\\') {
			return true
		}
	}
	return false
}

// do runs an operation on a file of a checkpoint.
func (a *away) do(op func() error) error {
	select {
	case <-a.stop:
		return ErrStopped
	default:
		return op()
	}
}

// over ends all checkpoints.
func (a *away) over() { a.once.Do(func() { close(a.stop) }) }

// awayFile is a file or folder of a checkpoint.
type awayFile struct {
	unsyncedFile
	away *away
}

// wrap runs an operation that opens a file.
func (a *away) wrap(open func() (vfs.File, error)) (file vfs.File, err error) {
	err = a.do(func() error {
		f, err := open()
		if err == nil {
			file = &awayFile{unsyncedFile{f}, a}
		}
		return err
	})
	return file, err
}

func (f *awayFile) Write(p []byte) (n int, err error) {
	err = f.away.do(func() (err error) {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}
