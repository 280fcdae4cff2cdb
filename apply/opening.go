package apply

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// This file is what a guardFS does for Pebble as it opens.

// isWAL tells a file of Pebble's own log. The event log does not come by here.
func isWAL(name string) bool {
	number, ok := strings.CutSuffix(filepath.Base(name), ".log")
	number, _, _ = strings.Cut(number, "-") // a log that WALFailover has split
	return ok && len(number) >= 6 && strings.Trim(number, "0123456789") == ""
}

// Pebble creates a file of its own log even while that is off. Nothing comes into it,
// but whoever opens the database next replays it, and for that flushes a memtable
// without keys into a new manifest, before it is open. So Pebble does not see those
// that are empty, and does without its own until it has settled. Then plain Pebble finds
// one, as it expects: if it finds none it writes no manifest as it opens, and its
// Checkpoint before the first flush copies nothing of the one that it has read.

func (g *guardFS) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	return slices.DeleteFunc(names, func(name string) bool { return g.isEmptyWAL(g.FS.PathJoin(dir, name)) }), err
}

func (g *guardFS) isEmptyWAL(path string) bool {
	if !isWAL(path) {
		return false
	}
	info, err := g.FS.Stat(path)
	return err == nil && info.Size() == 0
}

// createWAL makes a file of Pebble's own log, in memory and, later, an empty one on the
// disk in the place of those that were there.
func (g *guardFS) createWAL(name string) (vfs.File, error) {
	if !g.away.has(name) {
		g.wal = name
		if err := g.settling.do(func() error { g.replaceWALs(name); return nil }); err != nil {
			return nil, err
		}
	}
	return openWAL()
}

// replaceWALs does no harm where it fails.
func (g *guardFS) replaceWALs(name string) {
	f, err := g.create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	_ = f.Close()
	dir := g.FS.PathDir(name)
	names, _ := g.FS.List(dir)
	for _, old := range names {
		if old = g.FS.PathJoin(dir, old); old != name && g.isEmptyWAL(old) {
			_ = g.do(old, "", func() error { return g.FS.Remove(old) })
		}
	}
}

// openWAL returns an empty file. What is written to it is gone.
func openWAL() (vfs.File, error) { return vfs.NewMem().Create("wal", vfs.WriteCategoryUnspecified) }

// Open gives a checkpoint the file of Pebble's log that is in memory, and notes the
// manifest that Pebble reads as it opens.
func (g *guardFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if isWAL(name) && name == g.wal {
		return openWAL()
	}
	f, err := g.FS.Open(name, opts...)
	if err != nil || !isManifest(name) || !g.rewrites {
		return f, err
	}
	read := &readFile{File: f}
	if !g.settling.first(func() error { return g.rewrite(name, read.b) }) {
		return f, nil // a checkpoint's
	}
	return read, nil
}

// readFile keeps what is read of a file.
type readFile struct {
	vfs.File
	b []byte
}

func (f *readFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.b = append(f.b, p[:n]...)
	return n, err
}

// rewrite makes durable what Pebble has read of its manifest, and the name of that. It
// may be of a leader that was killed before it had synced what it wrote last, or that
// found a sync to fail: then there are pages in the kernel's cache that are marked clean
// and are not on the disk, and no sync writes them. A power cut would bring back what
// the manifest said before. So this comes first of all that was put off, and before log
// that is in the tables goes, see Machine.Durable.
func (g *guardFS) rewrite(name string, b []byte) error {
	return g.retry(name, "", func() error {
		f, err := g.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if _, err = f.WriteAt(b, 0); err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		return syncFolder(g.FS, g.FS.PathDir(name))
	})
}
