package apply_test

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// op is a change to the file system, or a sync.
type op struct {
	kind     string // create write sync rename link remove
	path     string
	category vfs.DiskWriteCategory
	size     int // of a write
}

// hookFS sees every change; before may fail it.
type hookFS struct {
	vfs.FS
	mu     sync.Mutex
	before func(op) error
	after  func(op)
}

func (h *hookFS) hook(before func(op) error, after func(op)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.after = before, after
}

func (h *hookFS) do(o op, f func() error) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(o); err != nil {
			return err
		}
	}
	err := f()
	if after != nil {
		after(o)
	}
	return err
}

func (h *hookFS) file(o op, open func() (vfs.File, error)) (f vfs.File, err error) {
	err = h.do(o, func() error {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &hookFile{File: f, h: h, op: o}, nil
}

func (h *hookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(h.FS.PathBase(name), "marker.") {
		// Pebble counts on a file system that keeps the order in which names are
		// made (all journalling ones do): what a marker names was created before.
		// MemFS drops unsynced names at random.
		if err := syncDir(h.FS, h.FS.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return h.file(op{kind: "create", path: name, category: c}, func() (vfs.File, error) { return h.FS.Create(name, c) })
}

func (h *hookFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return h.file(op{kind: "create", path: name, category: c}, func() (vfs.File, error) { return h.FS.OpenReadWrite(name, c, opts...) })
}

func (h *hookFS) OpenDir(name string) (vfs.File, error) {
	f, err := h.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &hookFile{File: f, h: h, op: op{path: name}}, nil
}

func (h *hookFS) Rename(from, to string) error {
	return h.do(op{kind: "rename", path: to}, func() error { return h.FS.Rename(from, to) })
}

func (h *hookFS) Link(from, to string) error {
	return h.do(op{kind: "link", path: to}, func() error { return h.FS.Link(from, to) })
}

func (h *hookFS) Remove(name string) error {
	return h.do(op{kind: "remove", path: name}, func() error { return h.FS.Remove(name) })
}

type hookFile struct {
	vfs.File
	h  *hookFS
	op op
}

func (f *hookFile) as(kind string) op {
	return op{kind: kind, path: f.op.path, category: f.op.category}
}

func (f *hookFile) write(p []byte) op {
	o := f.as("write")
	o.size = len(p)
	return o
}

func (f *hookFile) Write(p []byte) (n int, err error) {
	err = f.h.do(f.write(p), func() error { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *hookFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.h.do(f.write(p), func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f *hookFile) Sync() error     { return f.h.do(f.as("sync"), f.File.Sync) }
func (f *hookFile) SyncData() error { return f.h.do(f.as("sync"), f.File.SyncData) }
