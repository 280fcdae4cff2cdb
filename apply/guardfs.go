package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/internal/nospace"
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
//
// And it keeps a failover short, see settling, and Pebble's own log out of the way,
// see opening.go.
type guardFS struct {
	vfs.FS
	settling *settling
	// syncLog is set before the first entry is applied. Pebble's compactions read
	// it from the moment it is opened.
	syncLog atomic.Pointer[func() error]
	// full is the last failure of a flush or of the manifest for want of space,
	// nil when none since the last success.
	full atomic.Pointer[error]
	// failed is that of a flush for another reason.
	failed   atomic.Pointer[error]
	moving   atomic.Bool   // Pebble moves a marker: from its creation until it says that the manifest is in force
	quit     func(error)   // store.quit
	waits    atomic.Bool   // the manifest waits for space: only once Pebble is open, Open itself fails
	poll     time.Duration // spacePoll, but in a test
	stop     chan struct{} // closed when the store closes: nothing waits for space any more
	away     away          // checkpoints that are being made
	left     atomic.Bool   // Pebble was abandoned while it may still work
	wal      string        // the file of its own log that Pebble has created; immutable once it is open
	rewrites bool          // the manifest that Pebble reads, for the state to be durable; immutable

	fence struct {
		sync.RWMutex // held for reading by every operation that writes, while it runs
		down         bool
	}
}

// spacePoll is how long a write that found the disk full waits before it, or
// Pebble, tries again.
const spacePoll = 50 * time.Millisecond

func newGuardFS(fs vfs.FS) *guardFS {
	return &guardFS{FS: fs, settling: newSettling(), poll: spacePoll, stop: make(chan struct{}), away: away{stop: make(chan struct{})}}
}

// lower puts the fence down and returns once no operation is under way behind it.
func (g *guardFS) lower() {
	g.fence.Lock()
	defer g.fence.Unlock()
	g.fence.down = true
}

// fenced runs an operation that writes, unless the fence is down.
func (g *guardFS) fenced(op func() error) error {
	g.fence.RLock()
	defer g.fence.RUnlock()
	if g.fence.down {
		return ErrFenced
	}
	return op()
}

// attempt is fenced, and says of an operation that finds no space which file it was for.
func (g *guardFS) attempt(name string, op func() error) error {
	err := g.fenced(op)
	if nospace.Is(err) {
		err = fmt.Errorf("disk full: %s: %w", name, err)
	}
	return err
}

// do is attempt, and has an operation that finds no space wait a little. c is the
// category that the file was created with, if it is known.
func (g *guardFS) do(name string, c vfs.DiskWriteCategory, op func() error) error {
	err := g.attempt(name, op)
	g.note(c, err) // before the pause: else it may be news when there is room again
	if nospace.Is(err) {
		g.pause()
	}
	return err
}

// flushCategory is what Pebble creates the tables of a flush with.
const flushCategory = vfs.DiskWriteCategory("pebble-memtable-flush")

// note remembers why a flush failed. Pebble repeats a flush until it succeeds, and
// that ends the memory; nothing of the kind is sure of other files, of a compaction
// least: Pebble lets its keys alone for a while and looks again after a flush, which
// never comes while commands are refused.
func (g *guardFS) note(c vfs.DiskWriteCategory, err error) {
	switch {
	case c != flushCategory || err == nil:
	case nospace.Is(err):
		g.full.Store(&err)
	default:
		g.failed.Store(&err)
	}
}

// flushed forgets the failures of flushes: one has succeeded.
func (g *guardFS) flushed() {
	g.full.Store(nil)
	g.failed.Store(nil)
}

// pause waits for spacePoll or until the store closes.
func (g *guardFS) pause() {
	t := time.NewTimer(g.poll)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.stop:
	}
}

func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// isManifest: the files whose failure to be written Pebble does not survive.
func isManifest(name string) bool {
	return strings.HasPrefix(filepath.Base(name), "MANIFEST-") || isMarker(name)
}

// isMarker: the empty files whose names say which manifest, and which format, is
// in force.
func isMarker(name string) bool { return strings.HasPrefix(filepath.Base(name), "marker.") }

// retry is do, but runs op again while the disk is full, for files that Pebble must be
// able to write, until the store closes.
func (g *guardFS) retry(name string, c vfs.DiskWriteCategory, op func() error) error {
	if !isManifest(name) || !g.waits.Load() {
		return g.do(name, c, op)
	}
	for waited := false; ; waited = true {
		err := g.attempt(name, op)
		if err == nil && waited {
			g.full.Store(nil)
		}
		if !nospace.Is(err) {
			return err
		}
		g.full.Store(&err)
		g.pause()
		select {
		case <-g.stop:
			return err
		default:
		}
	}
}

func (g *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if isWAL(name) {
		return g.createWAL(name)
	}
	if g.away.has(name) {
		return g.away.wrap(func() (vfs.File, error) { return g.FS.Create(name, c) })
	}
	if isTable(name) && g.left.Load() {
		g.park()
	}
	if sync := g.syncLog.Load(); sync != nil && isTable(name) {
		if err := (*sync)(); err != nil {
			// Pebble tries again at once and for ever, as with a full disk.
			err = fmt.Errorf("sync the log before table %s: %w", filepath.Base(name), err)
			g.note(c, err)
			g.pause()
			return nil, err
		}
	}
	if isMarker(name) {
		// The name is all there is to a marker: creating it brings what it names
		// into force.
		open := g.waits.Load()
		err := g.settling.do(func() error {
			// Pebble syncs the folder once, behind both: a power cut before that
			// could leave the name of the marker, and not of what it names.
			dir := g.FS.PathDir(name)
			if err := g.do(dir, "", func() error { return syncFolder(g.FS, dir) }); err != nil {
				return err
			}
			f, err := g.create(name, c)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err == nil && open {
			g.moving.Store(true)
		}
		return markerFile{}, err
	}
	f, err := g.create(name, c)
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name, category: c}, nil
}

// park ends a flush or a compaction of a Pebble that was abandoned: it does not
// return. After an error Pebble would begin the flush again, at once and for ever.
func (g *guardFS) park() { select {} }

// syncFolder makes the names in a folder durable.
func syncFolder(fs vfs.FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (g *guardFS) create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.retry(name, c, func() (err error) {
		f, err = g.FS.Create(name, c)
		return err
	})
	return f, err
}

// markerFile stands for a marker, which Pebble creates and closes.
type markerFile struct{ vfs.File }

func (markerFile) Close() error { return nil }

func (g *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	var f vfs.File
	err := g.do(name, c, func() (err error) {
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
	err := g.do(newname, c, func() (err error) {
		f, err = g.FS.ReuseForWrite(oldname, newname, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: newname}, nil
}

func (g *guardFS) MkdirAll(dir string, perm os.FileMode) error {
	if g.away.has(dir) {
		return g.away.do(func() error { return g.FS.MkdirAll(dir, perm) })
	}
	return g.FS.MkdirAll(dir, perm)
}

func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	if g.away.has(name) {
		return g.away.wrap(func() (vfs.File, error) { return g.FS.OpenDir(name) })
	}
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardFolder{guardFile{File: f, fs: g, name: name}}, nil
}

func (g *guardFS) Link(oldname, newname string) error {
	if g.away.has(newname) {
		return g.away.do(func() error { return g.FS.Link(oldname, newname) })
	}
	return g.settling.do(func() error {
		return g.retry(newname, "", func() error { return g.FS.Link(oldname, newname) })
	})
}

func (g *guardFS) Rename(oldname, newname string) error {
	if g.away.has(newname) {
		return g.FS.Rename(oldname, newname)
	}
	return g.settling.do(func() error {
		return g.retry(newname, "", func() error { return g.FS.Rename(oldname, newname) })
	})
}

func (g *guardFS) Remove(name string) error {
	return g.settling.remove(func() error {
		return g.do(name, "", func() error { return g.FS.Remove(name) })
	})
}

func (g *guardFS) RemoveAll(name string) error {
	return g.settling.do(func() error {
		return g.do(name, "", func() error { return g.FS.RemoveAll(name) })
	})
}

func (g *guardFS) Unwrap() vfs.FS { return g.FS }

// guardFile is a file that Pebble may write.
type guardFile struct {
	vfs.File
	fs       *guardFS
	name     string
	category vfs.DiskWriteCategory // of Create, else empty
}

func (f *guardFile) Write(p []byte) (n int, err error) {
	err = f.fs.retry(f.name, f.category, func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

func (f *guardFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do(f.name, f.category, func() (err error) {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

// A sync that failed is not tried again, whatever the reason: the kernel tells of
// lost pages once, and the next sync would succeed without them.

func (f *guardFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *guardFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardFile) sync(op func() error) error {
	sync := func() error { return f.fs.do(f.name, f.category, op) }
	if isTable(f.name) {
		// Never put off: the manifest that names it is in the kernel's cache at once. After
		// a kill the next leader would find it there, and name the table in a manifest
		// of its own that it syncs; a power cut then leaves that without the table.
		return sync()
	}
	return f.fs.settling.do(sync)
}

// guardFolder is a folder that Pebble syncs.
type guardFolder struct{ guardFile }

// Sync syncs the folder. Where Pebble has moved a marker it panics if that fails, in a
// flush or a compaction, and ends the process; it may do so for the fence too.
func (f *guardFolder) Sync() error {
	err := f.guardFile.Sync()
	if err != nil && f.fs.moving.Load() {
		f.fs.quit(fmt.Errorf("bring a manifest into force: sync %s: %w", f.name, err))
	}
	return err
}

func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	err = f.fs.do(f.name, f.category, func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *guardFile) Close() error { return f.fs.settling.close(f.File.Close) }

func (f *guardFile) Preallocate(off, length int64) error {
	// Pebble ignores a failure, so it says nothing of the disk; but it must not
	// change a file that the next leader has opened.
	return f.fs.fenced(func() error { return f.File.Preallocate(off, length) })
}
