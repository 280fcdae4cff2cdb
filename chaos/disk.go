package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system that the processes of Run have their database on: the
// one below, with a platter that tells what a power cut leaves, and with the
// faults that it is told to have.
type disk struct {
	vfs.FS
	db      string            // the folder that faults happen in
	platter *platter          // nil: none is kept
	failed  func(what string) // told of syncs that are made to fail
	caught  func()            // told that the trap holds somebody
	trap    atomic.Pointer[trap]

	ails atomic.Pointer[ailment] // nil: healthy

	mu  sync.Mutex
	rng *rand.Rand // under mu
}

// ailment is what is wrong with a disk.
type ailment struct {
	Full  bool          `json:"full,omitempty"`  // what takes room fails
	Short bool          `json:"short,omitempty"` // some writes write a part and fail
	Syncs string        `json:"syncs,omitempty"` // of which files syncs fail: syncsOfLog or syncsOfAll
	Once  bool          `json:"once,omitempty"`  // and only the first of them
	For   time.Duration `json:"for,omitempty"`   // then it is healthy again; 0: until told

	spent atomic.Bool // Once, and it happened
}

const (
	syncsOfLog = "log"
	syncsOfAll = "all"
)

// What files fail with. Both are the system's own errors, and say where they are from.
var (
	errInjected = errors.New("injected by chaos")
	errNoRoom   = fmt.Errorf("%w: %w", errInjected, syscall.ENOSPC)
	errBroken   = fmt.Errorf("%w: %w", errInjected, syscall.EIO)
)

func newDisk(fs vfs.FS, db string, p *platter, seed uint64) *disk {
	return &disk{FS: fs, db: db, platter: p, failed: func(string) {}, caught: func() {}, rng: rand.New(rand.NewPCG(seed, 0xd15c))}
}

// ail has the disk be ill; nil: healthy.
func (d *disk) ail(a *ailment) {
	d.ails.Store(a)
	if a != nil && a.For > 0 {
		time.AfterFunc(a.For, func() { d.ails.CompareAndSwap(a, nil) })
	}
}

// below returns what ails the disk, if path is in the database.
func (d *disk) below(path string) *ailment {
	a := d.ails.Load()
	if a == nil || !strings.HasPrefix(path, d.db+string(filepath.Separator)) {
		return nil
	}
	return a
}

// taking is asked before room is taken for a name.
func (d *disk) taking(op, path string) error {
	d.passes(path)
	if a := d.below(path); a != nil && a.Full {
		return &os.PathError{Op: op, Path: path, Err: errNoRoom}
	}
	return nil
}

// writing is asked before n bytes are written, that take room or not. It returns
// how many are, and how the write fails.
func (d *disk) writing(path string, n int, grows bool) (int, error) {
	a := d.below(path)
	if a == nil || n == 0 {
		return n, nil
	}
	fail := func(n int, err error) (int, error) { return n, &os.PathError{Op: "write", Path: path, Err: err} }
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case a.Full && grows:
		if d.rng.IntN(4) == 0 { // the last room there is
			return fail(d.rng.IntN(n), errNoRoom)
		}
		return fail(0, errNoRoom)
	case a.Short && d.rng.IntN(3) == 0:
		return fail(d.rng.IntN(n), errBroken)
	}
	return n, nil
}

// syncFails is asked before a sync.
func (d *disk) syncFails(path string) error {
	a := d.below(path)
	if a == nil || a.Syncs == "" || a.Syncs == syncsOfLog && !isSegment(path) || a.Once && a.spent.Swap(true) {
		return nil
	}
	what := "all"
	if isSegment(path) {
		what = syncsOfLog
	}
	d.failed(what)
	return &os.PathError{Op: "sync", Path: path, Err: errBroken}
}

// isSegment tells a segment of the log.
func isSegment(path string) bool {
	return filepath.Ext(path) == ".log" && filepath.Base(filepath.Dir(path)) == "log"
}

// writable is a file that was just opened for writing.
func (d *disk) writable(f vfs.File, err error, path string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	n, err := d.platter.open(f, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &diskFile{File: f, disk: d, path: path, inode: n}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.taking("create", name); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	return d.writable(f, err, name)
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if _, err := d.FS.Stat(name); err != nil {
		if err := d.taking("create", name); err != nil {
			return nil, err
		}
	}
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return d.writable(f, err, name)
}

func (d *disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.passes(to)
	f, err := d.FS.ReuseForWrite(from, to, c)
	return d.writable(f, err, to)
}

func (d *disk) Link(from, to string) error {
	if err := d.taking("link", to); err != nil {
		return err
	}
	return d.FS.Link(from, to)
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	if _, err := d.FS.Stat(dir); err != nil {
		if err := d.taking("mkdir", dir); err != nil {
			return err
		}
	}
	return d.FS.MkdirAll(dir, perm)
}

func (d *disk) Rename(from, to string) error {
	d.passes(to)
	return d.FS.Rename(from, to)
}

func (d *disk) Remove(name string) error {
	d.passes(name)
	return d.FS.Remove(name)
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &diskFolder{File: f, disk: d, path: filepath.Clean(name)}, nil
}

func (d *disk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := d.FS.GetDiskUsage(path)
	if a := d.ails.Load(); a != nil && a.Full {
		u.AvailBytes = 0
	}
	return u, err
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

// diskFile is a file that was opened for writing.
type diskFile struct {
	vfs.File
	disk  *disk
	path  string
	inode *inode // nil: the platter does not know it

	at     int64 // where Write writes; only who writes uses it
	closed atomic.Bool
}

func (f *diskFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	f.at += int64(n)
	return n, err
}

func (f *diskFile) Write(b []byte) (int, error) {
	n, err := f.write(b, f.at, f.File.Write)
	f.at += int64(n)
	return n, err
}

func (f *diskFile) WriteAt(b []byte, at int64) (int, error) {
	return f.write(b, at, func(b []byte) (int, error) { return f.File.WriteAt(b, at) })
}

func (f *diskFile) write(b []byte, at int64, write func([]byte) (int, error)) (int, error) {
	grows := true // to write over what a file has already takes no room
	if info, err := f.File.Stat(); err == nil {
		grows = at+int64(len(b)) > info.Size()
	}
	some, fault := f.disk.writing(f.path, len(b), grows)
	n, err := write(b[:some])
	if f.inode != nil {
		f.inode.wrote(at, at+int64(n))
	}
	if err == nil {
		err = fault
	}
	return n, err
}

func (f *diskFile) Close() error {
	var err error
	if f.inode != nil && !f.closed.Swap(true) {
		err = f.inode.close() // first: once the file is closed, a new one may have its number
	}
	return errors.Join(err, f.File.Close())
}

func (f *diskFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *diskFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *diskFile) SyncTo(length int64) (full bool, err error) {
	// It promises nothing unless it is a full sync, which Linux never makes of it
	// where it can do better.
	full, err = f.File.SyncTo(length)
	if err == nil && full {
		err = f.sync(func() error { return nil })
	}
	return full, err
}

func (f *diskFile) sync(sync func() error) error {
	attempt := func() error {
		f.disk.passes(f.path)
		if err := f.disk.syncFails(f.path); err != nil {
			return err
		}
		return sync()
	}
	if f.inode == nil {
		return attempt()
	}
	return f.disk.platter.sync(f.inode, f.File, attempt)
}

// diskFolder is a folder that was opened to be synced.
type diskFolder struct {
	vfs.File
	disk *disk
	path string
}

func (f *diskFolder) SyncData() error { return f.Sync() }

func (f *diskFolder) Sync() error {
	f.disk.passes(f.path)
	if err := f.disk.syncFails(f.path); err != nil {
		return err
	}
	if p := f.disk.platter; p != nil {
		if i := p.knows(f.path); i >= 0 {
			return p.syncFolder(i, f.File.Sync)
		}
	}
	return f.File.Sync()
}
