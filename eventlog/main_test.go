package eventlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("EVENTLOG_WRITER"); dir != "" {
		os.Exit(writerProcess(dir))
	}
	goleak.VerifyTestMain(m)
}

const all = math.MaxUint64

var testID = eventlog.ID{1, 2, 3}

// small are options with which little data makes many segments and chunks.
func small(fs vfs.FS) eventlog.Options {
	return eventlog.Options{FS: fs, ID: testID, SegmentBytes: 2048, ChunkBytes: 512, ReserveSeqs: 8}
}

func memFS(t testing.TB) *vfs.MemFS {
	fs := vfs.NewCrashableMem()
	must(t, fs.MkdirAll("/db", 0o700))
	must(t, syncDir(fs, "/"))
	return fs
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

const logDir = "/db/log"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, o eventlog.Options) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(logDir, o)
	must(t, err)
	t.Cleanup(func() { _ = l.Abort() })
	return l
}

// lead opens the log and starts a term.
func lead(t testing.TB, o eventlog.Options) *eventlog.Log {
	t.Helper()
	l := open(t, o)
	_, _, err := l.StartTerm(time.Unix(100, 7))
	must(t, errors.Join(err, l.Sync()))
	return l
}

// hooked begins a log on a file system that operations can be hooked into; o is what it was opened with.
func hooked(t testing.TB) (fs *vfs.MemFS, h *hookFS, o eventlog.Options, l *eventlog.Log) {
	t.Helper()
	fs = memFS(t)
	h = &hookFS{FS: fs}
	o = small(fs)
	o.FS = h
	return fs, h, o, lead(t, o)
}

func add(t testing.TB, l *eventlog.Log, sync bool, entries ...string) uint64 {
	t.Helper()
	b := make([][]byte, len(entries))
	for i, e := range entries {
		b[i] = []byte(e)
	}
	first, err := l.Append(b, sync)
	must(t, err)
	return first
}

// entry is a content that can be told from all others.
func entry(n, size int) string {
	s := fmt.Sprintf("entry %d ", n)
	return s + string(bytes.Repeat([]byte{byte('a' + n%26)}, size))
}

type rec struct {
	seq, term uint64
	kind      eventlog.Kind
	payload   string
}

func read(fs vfs.FS, dir string, from, limit uint64) (got []rec, err error) {
	r, err := eventlog.OpenReader(fs, dir, from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		x, ok, err := r.Next(limit)
		if err != nil || !ok {
			return got, err
		}
		got = append(got, rec{x.Seq, x.Term, x.Kind, string(x.Payload)})
	}
}

func mustRead(t testing.TB, fs vfs.FS, from uint64) []rec {
	t.Helper()
	got, err := read(fs, logDir, from, all)
	must(t, err)
	return got
}

// entries maps the numbers of the entries to their contents.
func entries(recs []rec) map[uint64]string {
	m := map[uint64]string{}
	for _, r := range recs {
		if r.kind == eventlog.KindEntry {
			m[r.seq] = r.payload
		}
	}
	return m
}

// lastFile returns the path of the last segment.
func lastFile(t testing.TB, fs vfs.FS) string {
	t.Helper()
	names, err := fs.List(logDir)
	must(t, err)
	last := ""
	for _, n := range names {
		last = max(last, n)
	}
	return fs.PathJoin(logDir, last)
}

func contents(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, info.Size())
	if len(b) > 0 {
		_, err = f.ReadAt(b, 0)
		must(t, err)
	}
	return b
}

// put replaces a file.
func put(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(bytes.Clone(b))
	must(t, err)
	must(t, f.Close())
}

// op is a change to the file system, or a sync.
type op struct {
	kind string // write sync syncdata syncdir create remove
	path string
	off  int64
	n    int
}

// hookFS sees every change. before may return an error instead, for a write after some bytes of it.
type hookFS struct {
	vfs.FS
	mu     sync.Mutex
	before func(op) (n int, err error)
	after  func(op)
	ops    []op
}

func (h *hookFS) do(o op, f func(n int) error) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.ops = append(h.ops, o)
	h.mu.Unlock()
	n := o.n
	if before != nil {
		short, err := before(o)
		if err != nil {
			if o.kind == "write" && short > 0 {
				_ = f(short)
			}
			return err
		}
	}
	err := f(n)
	if after != nil {
		after(o)
	}
	return err
}

// count says how many operations of a kind there were since the last call of reset.
func (h *hookFS) count(kind string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.kind == kind {
			n++
		}
	}
	return n
}

func (h *hookFS) reset(before func(op) (int, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops, h.before = nil, before
}

func (h *hookFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	if _, serr := h.FS.Stat(name); serr == nil {
		f, err = h.FS.OpenReadWrite(name, c, opts...)
	} else {
		herr := h.do(op{kind: "create", path: name}, func(int) error {
			f, err = h.FS.OpenReadWrite(name, c, opts...)
			return err
		})
		if herr != nil {
			return nil, herr
		}
	}
	if err != nil {
		return nil, err
	}
	return &hookFile{File: f, h: h, path: name}, nil
}

func (h *hookFS) OpenDir(name string) (vfs.File, error) {
	f, err := h.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &hookFile{File: f, h: h, path: name, dir: true}, nil
}

func (h *hookFS) Remove(name string) error {
	if _, err := h.FS.Stat(name); err != nil {
		return err
	}
	return h.do(op{kind: "remove", path: name}, func(int) error { return h.FS.Remove(name) })
}

type hookFile struct {
	vfs.File
	h    *hookFS
	path string
	dir  bool
}

func (f *hookFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.h.do(op{kind: "write", path: f.path, off: off, n: len(p)}, func(n int) error {
		_, err := f.File.WriteAt(p[:n], off)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *hookFile) Sync() error {
	kind := "sync"
	if f.dir {
		kind = "syncdir"
	}
	return f.h.do(op{kind: kind, path: f.path}, func(int) error { return f.File.Sync() })
}

func (f *hookFile) SyncData() error {
	return f.h.do(op{kind: "syncdata", path: f.path}, func(int) error { return f.File.SyncData() })
}
