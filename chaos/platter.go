package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// platter is what of the database is on the disk and not only in the kernel's
// cache: what a power cut leaves for sure. A file's bytes get there when the file
// is synced, its name when the folder is. It is kept beside the database, in
// files that are written before a sync returns, so that it holds for all
// processes and outlives any of them.
//
// It knows the folders that the database itself is in, and the log's. What else
// there is (the commit word, the endpoint, replicas) nobody syncs.
//
// A file goes by the number of its inode. Each has another name in the folder
// pin, so that its number is not given to a new file while the platter speaks of
// it, and so that its bytes are there when its last name is removed.
type platter struct {
	dir     string   // of the platter itself: pin, data, lost, names
	folders []string // those it knows

	naming sync.Mutex // held over the sync of a folder: one at a time

	mu     sync.Mutex
	inodes map[uint64]*inode // those that this process has had open
}

// inode is what this process knows of a file it may write to.
type inode struct {
	number uint64

	syncing sync.Mutex // held over a sync: one at a time. Taken before mu
	lost    extents    // see platter.lost; under syncing

	mu    sync.Mutex
	dirty extents  // written and not synced: by this process, or maybe by one before
	data  *os.File // what the platter holds; open with the file, lest a sync finds no file to be had
	users int
}

// newPlatter returns the platter of the database in db, which is kept in dir, on
// the same file system.
func newPlatter(dir, db string) *platter {
	return &platter{dir: dir, folders: []string{db, filepath.Join(db, "party", "log")}, inodes: map[uint64]*inode{}}
}

// knows returns which of its folders a path is, or is a file of; -1: none.
func (p *platter) knows(folder string) int {
	for i, f := range p.folders {
		if f == folder {
			return i
		}
	}
	return -1
}

func (p *platter) path(kind string, number uint64) string {
	return filepath.Join(p.dir, kind, strconv.FormatUint(number, 10))
}

// open takes note of a file that can be written to from now on; nil: the platter
// does not know its folder.
func (p *platter) open(f vfs.File, path string) (*inode, error) {
	if p == nil || p.knows(filepath.Dir(path)) < 0 {
		return nil, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	number, err := inodeNumber(info)
	if err != nil {
		return nil, err
	}
	if err := p.pin(path, number); err != nil {
		return nil, err
	}
	p.mu.Lock()
	n := p.inodes[number]
	if n == nil {
		n = &inode{number: number}
		p.inodes[number] = n
	}
	p.mu.Unlock()
	lost, err := p.lost(number)
	if err != nil {
		return nil, err
	}
	n.syncing.Lock()
	defer n.syncing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.users == 0 {
		if n.data, err = os.OpenFile(p.path("data", number), os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
			return nil, err
		}
	}
	n.users++
	// Processes before this one may have written anything.
	n.lost, n.dirty = lost, extents{wholeFile}.without(lost)
	return n, nil
}

// close is for each open.
func (n *inode) close() error {
	n.syncing.Lock()
	defer n.syncing.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.users--; n.users > 0 {
		return nil
	}
	return n.data.Close()
}

// pin gives a file its other name, once. It leaves alone what the platter holds of
// it: the file may be known since a moment ago, and be synced by now.
func (p *platter) pin(path string, number uint64) error {
	if err := os.Link(path, p.path("pin", number)); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// wrote takes note of bytes that have been written, before who wrote them is
// told: a sync that began meanwhile may miss them.
func (n *inode) wrote(from, to int64) {
	n.mu.Lock()
	n.dirty = n.dirty.add(extent{from, to})
	n.mu.Unlock()
}

// sync syncs f and then has the platter hold what was written to it.
func (p *platter) sync(n *inode, f vfs.File, sync func() error) error {
	n.syncing.Lock()
	defer n.syncing.Unlock()
	n.mu.Lock()
	dirty := n.dirty
	n.dirty = nil
	n.mu.Unlock()
	err := sync()
	if err == nil {
		err = p.copy(n, f, dirty)
	} else {
		// The kernel has marked the pages clean, and no later sync writes them.
		for _, e := range dirty {
			n.lost = n.lost.add(e)
		}
		err = errors.Join(err, p.writeJSON("lost", n.number, n.lost))
	}
	return err
}

// copy brings bytes of a file, and its size, to the platter.
func (p *platter) copy(n *inode, f vfs.File, dirty extents) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for _, e := range dirty {
		length := min(e.To, info.Size()) - e.From
		if length <= 0 {
			continue
		}
		if _, err := io.Copy(io.NewOffsetWriter(n.data, e.From), io.NewSectionReader(f, e.From, length)); err != nil {
			return err
		}
	}
	if err := n.data.Truncate(info.Size()); err != nil || len(n.lost) == 0 {
		return err
	}
	n.lost = n.lost.without(dirty)
	return p.writeJSON("lost", n.number, n.lost)
}

// lost returns the bytes of a file that are in the kernel's cache and will not
// get to the disk unless they are written again.
func (p *platter) lost(number uint64) (lost extents, err error) {
	return lost, p.readJSON("lost", number, &lost)
}

// names are the files of a folder.
type names map[string]uint64

// there returns the names that a folder has now.
func (p *platter) there(folder int) (names, error) {
	entries, err := os.ReadDir(p.folders[folder])
	if err != nil {
		return nil, err
	}
	there := names{}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return nil, err
		}
		number, err := inodeNumber(info)
		if err != nil {
			return nil, err
		}
		there[e.Name()] = number
	}
	return there, nil
}

// durable returns the names that a folder has on the disk.
func (p *platter) durable(folder int) (n names, err error) {
	return n, p.readJSON("names", uint64(folder), &n)
}

// syncFolder syncs a folder and has the platter hold the names that it had before.
func (p *platter) syncFolder(folder int, sync func() error) error {
	p.naming.Lock()
	defer p.naming.Unlock()
	there, err := p.there(folder)
	if err != nil {
		return err
	}
	if err := sync(); err != nil {
		return err
	}
	for name, number := range there { // Pebble's lock was not opened by way of open
		err := p.pin(filepath.Join(p.folders[folder], name), number)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := p.writeJSON("names", uint64(folder), there); err != nil {
		return err
	}
	return p.sweep()
}

// sweep forgets the files that have no name any more, neither in the kernel's
// cache nor on the disk.
func (p *platter) sweep() error {
	named := map[uint64]bool{}
	for i := range p.folders {
		durable, err := p.durable(i)
		if err != nil {
			return err
		}
		for _, number := range durable {
			named[number] = true
		}
	}
	pins, err := os.ReadDir(filepath.Join(p.dir, "pin"))
	if err != nil {
		return err
	}
	for _, e := range pins {
		number, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if named[number] || links(info) > 1 {
			continue
		}
		for _, kind := range []string{"data", "lost", "pin"} { // the pin last: then the number may come again
			if err := os.Remove(p.path(kind, number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// hold has the platter hold all that is there. No process may have the database
// open.
func (p *platter) hold() error {
	for _, kind := range []string{"pin", "data", "lost", "names"} {
		if err := os.MkdirAll(filepath.Join(p.dir, kind), 0o700); err != nil {
			return err
		}
	}
	for i, folder := range p.folders {
		there, err := p.there(i)
		if err != nil {
			return err
		}
		for name, number := range there {
			path := filepath.Join(folder, name)
			if err := p.pin(path, number); err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(p.path("data", number), b, 0o600); err != nil {
				return err
			}
			if err := os.Remove(p.path("lost", number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := p.writeJSON("names", uint64(i), there); err != nil {
			return err
		}
	}
	return p.sweep()
}

// readJSON reads v, which stays as it is if there is no such file.
func (p *platter) readJSON(kind string, number uint64, v any) error {
	b, err := os.ReadFile(p.path(kind, number))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("platter: %w", err)
	}
	return nil
}

// writeJSON writes v at once, whatever becomes of the process.
func (p *platter) writeJSON(kind string, number uint64, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	beside, err := os.CreateTemp(p.dir, "new-*")
	if err != nil {
		return fmt.Errorf("platter: %w", err)
	}
	_, err = beside.Write(b)
	if err = errors.Join(err, beside.Close()); err == nil {
		err = os.Rename(beside.Name(), p.path(kind, number))
	}
	if err != nil {
		return fmt.Errorf("platter: %w", err)
	}
	return nil
}
