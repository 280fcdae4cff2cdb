package apply

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrFenced is what Pebble gets from its files once the store was abandoned.
var ErrFenced = errors.New("apply: this process no longer leads; its Pebble may write no more")

// guardFS is the file system Pebble works on. It keeps three promises:
//
//   - Log before state. Pebble's tables become durable without its own
//     write-ahead log. Before a table is created, the event log is synced, so
//     the tables never hold an entry that a power cut could take from the log.
//   - A full disk is no crash. Pebble ends the process when it cannot write its
//     manifest. For want of space that write waits here instead, and any other
//     write that finds no space is slowed down, as Pebble retries at once and
//     for ever.
//   - A fence. After Abandon no write reaches the disk, whatever goroutine of a
//     broken Pebble still runs.
type guardFS struct {
	vfs.FS
	syncLog func() error          // set before the first entry is applied
	full    atomic.Pointer[error] // the last failure for want of space, nil when none since the last success
	stop    chan struct{}         // closed when the store closes: nothing waits for space any more

	fence struct {
		sync.RWMutex // held for reading by every operation that writes, while it runs
		down         bool
	}
}

// spacePoll is how long a write that found the disk full waits before it, or
// Pebble, tries again.
const spacePoll = 50 * time.Millisecond

func newGuardFS(fs vfs.FS) *guardFS {
	return &guardFS{FS: fs, syncLog: func() error { return nil }, stop: make(chan struct{})}
}

// lower puts the fence down and returns once no operation is under way behind it.
func (g *guardFS) lower() {
	g.fence.Lock()
	defer g.fence.Unlock()
	g.fence.down = true
}

// do runs an operation that writes, unless the fence is down.
func (g *guardFS) do(name string, op func() error) error {
	g.fence.RLock()
	if g.fence.down {
		g.fence.RUnlock()
		return ErrFenced
	}
	err := op()
	g.fence.RUnlock()
	return g.note(name, err)
}

// note remembers a failure for want of space and waits a little; it returns err.
func (g *guardFS) note(name string, err error) error {
	if err == nil || !vfs.IsNoSpaceError(err) {
		return err
	}
	err = fmt.Errorf("disk full: %s: %w", name, err)
	g.full.Store(&err)
	g.pause()
	return err
}

// pause waits for spacePoll or until the store closes; false says it closes.
func (g *guardFS) pause() bool {
	t := time.NewTimer(spacePoll)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.stop:
		return false
	}
}

func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// isManifest: the files whose failure to be written Pebble does not survive.
func isManifest(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

// retry runs op again while the disk is full, for files that Pebble must be
// able to write, until the store closes.
func (g *guardFS) retry(name string, op func() error) error {
	for {
		err := g.do(name, op)
		if err == nil || !vfs.IsNoSpaceError(err) || !isManifest(name) {
			return err
		}
		select {
		case <-g.stop:
			return err
		default:
		}
	}
}

func (g *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if isTable(name) {
		if err := g.syncLog(); err != nil {
			return nil, fmt.Errorf("sync the log before table %s: %w", filepath.Base(name), err)
		}
	}
	var f vfs.File
	err := g.retry(name, func() (err error) {
		f, err = g.FS.Create(name, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name}, nil
}

func (g *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	var f vfs.File
	err := g.do(name, func() (err error) {
		f, err = g.FS.OpenReadWrite(name, c, opts...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name}, nil
}

func (g *guardFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	var f vfs.File
	err := g.do(newname, func() (err error) {
		f, err = g.FS.ReuseForWrite(oldname, newname, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: newname}, nil
}

func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name}, nil
}

func (g *guardFS) Link(oldname, newname string) error {
	return g.retry(newname, func() error { return g.FS.Link(oldname, newname) })
}

func (g *guardFS) Rename(oldname, newname string) error {
	return g.retry(newname, func() error { return g.FS.Rename(oldname, newname) })
}

func (g *guardFS) Remove(name string) error {
	return g.do(name, func() error { return g.FS.Remove(name) })
}

func (g *guardFS) RemoveAll(name string) error {
	return g.do(name, func() error { return g.FS.RemoveAll(name) })
}

func (g *guardFS) Unwrap() vfs.FS { return g.FS }

// guardFile is a file that Pebble may write.
type guardFile struct {
	vfs.File
	fs   *guardFS
	name string
}

func (f *guardFile) Write(p []byte) (n int, err error) {
	err = f.fs.retry(f.name, func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

func (f *guardFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do(f.name, func() (err error) {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *guardFile) Sync() error     { return f.fs.retry(f.name, f.File.Sync) }
func (f *guardFile) SyncData() error { return f.fs.retry(f.name, f.File.SyncData) }

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.fs.do(f.name, func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *guardFile) Preallocate(off, length int64) error {
	// Pebble ignores a failure, so it says nothing of the disk.
	return f.File.Preallocate(off, length)
}
