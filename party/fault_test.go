package party_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// faultFS counts what is done to files and lets it fail.
type faultFS struct {
	vfs.FS
	fault atomic.Pointer[func(op, path string) error] // nil: none
	syncs atomic.Int64                                // of log segments
}

func newFaultFS() *faultFS { return &faultFS{FS: vfs.Default} }

func (f *faultFS) Unwrap() vfs.FS { return f.FS }

// set has operations fail with what fault returns; nil: with nothing.
func (f *faultFS) set(fault func(op, path string) error) {
	if fault == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&fault)
}

func (f *faultFS) check(op, path string) error {
	if isLog(path) && (op == "sync" || op == "syncdata") {
		f.syncs.Add(1)
	}
	if fault := f.fault.Load(); fault != nil {
		if err := (*fault)(op, path); err != nil {
			return &os.PathError{Op: op, Path: path, Err: err}
		}
	}
	return nil
}

// isLog tells a segment of the event log; Pebble's own log has the same suffix.
func isLog(path string) bool {
	return strings.HasSuffix(path, ".log") && filepath.Base(filepath.Dir(path)) == "log"
}

func isTable(path string) bool { return strings.HasSuffix(path, ".sst") }

func isManifest(path string) bool { return strings.HasPrefix(filepath.Base(path), "MANIFEST") }

func (f *faultFS) wrap(file vfs.File, err error, path string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, path: path}, nil
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(file, err, name)
}

func (f *faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if _, err := os.Stat(name); err != nil {
		if err := f.check("create", name); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(file, err, name)
}

func (f *faultFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check("create", to); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(from, to, c)
	return f.wrap(file, err, to)
}

type faultFile struct {
	vfs.File
	fs   *faultFS
	path string
}

func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.fs.check("write", f.path); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

// WriteAt: to write over what a file has already takes no room.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	op := "overwrite"
	if fi, err := f.File.Stat(); err != nil || off+int64(len(p)) > fi.Size() {
		op = "write"
	}
	if err := f.fs.check(op, f.path); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.fs.check("sync", f.path); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error {
	if err := f.fs.check("syncdata", f.path); err != nil {
		return err
	}
	return f.File.SyncData()
}

func on(fs vfs.FS) *party.Options {
	return &party.Options{Pebble: &pebble.Options{FS: fs, Merger: sum, Logger: silent{}}}
}

func TestDB_SyncsEverySyncWrite(t *testing.T) {
	fs := newFaultFS()
	dir := newDirFor(t, on(nil).Pebble)
	leader := open(t, dir, on(fs))
	leads(t, leader)
	follower := start(t, config{Dir: dir, Sum: true})
	const n = 50
	before := fs.syncs.Load()
	follower.do(request{Op: "sets", Key: []byte("s"), N: n})
	if got := fs.syncs.Load() - before; got < n {
		t.Errorf("%d syncs of the log for %d Sync writes, one at a time", got, n)
	}
	for i := range n { // and the leader's own
		set(t, leader, fmt.Sprint("l", i), "v")
	}
	if got := fs.syncs.Load() - before; got < 2*n {
		t.Errorf("%d syncs of the log for %d Sync writes, one at a time", got, 2*n)
	}
	before = fs.syncs.Load()
	follower.do(request{Op: "sets", Key: []byte("n"), N: n, NoSync: true})
	if got := fs.syncs.Load() - before; got > n/10 {
		t.Errorf("%d syncs of the log for %d NoSync writes", got, n)
	}
	// An empty Sync batch makes all that was written before durable.
	before = fs.syncs.Load()
	var empty pebble.Batch
	_, err := leader.Apply(within(t), &empty, pebble.Sync)
	must(t, err)
	if fs.syncs.Load() == before {
		t.Error("an empty Sync batch did not sync NoSync writes")
	}
}

func TestDB_NoSyncSurvivesKill(t *testing.T) {
	dir := newDir(t)
	const n = 200
	leader := start(t, config{Dir: dir})
	follower := open(t, dir, nil)
	leader.do(request{Op: "sets", Key: []byte("leader"), N: n, NoSync: true})
	for i := range n {
		must(t, follower.Set(within(t), fmt.Appendf(nil, "follower%06d", i), nil, pebble.NoSync))
	}
	leader.kill()
	if got := len(scan(t, follower, nil)); got != 2*n {
		t.Errorf("%d of %d NoSync writes survived kill -9", got, 2*n)
	}
}

// TestDB_DiskFull: the leader's disk is full for the log, for Pebble's tables, or
// for all; or its user has no room left on it.
func TestDB_DiskFull(t *testing.T) {
	all := func(string) bool { return true }
	for name, full := range map[string]struct {
		of  func(path string) bool
		err error
	}{
		"log": {isLog, syscall.ENOSPC}, "tables": {isTable, syscall.ENOSPC}, "everything": {all, syscall.ENOSPC},
		"quota": {all, syscall.EDQUOT},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newFaultFS()
			dir := newDirFor(t, on(nil).Pebble)
			o := on(fs)
			o.Pebble.MemTableSize = 256 << 10
			o.Events.RoleChanged = func(r party.RoleChange) {
				if r.Cause != nil {
					t.Errorf("a full disk ended the term: %v", r.Cause)
				}
			}
			leader := open(t, dir, o)
			leads(t, leader)
			follower := open(t, dir, on(nil))
			set(t, follower, "before", "1")
			fs.set(func(op, path string) error {
				if (op == "write" || op == "create") && full.of(path) {
					return full.err
				}
				return nil
			})
			t.Cleanup(func() { fs.set(nil) })
			value := make([]byte, 32<<10)
			acked := 0
			for _, db := range []*party.DB{follower, leader} {
				until(t, "a write fails for want of space", func() bool {
					err := db.Set(within(t), fmt.Appendf(nil, "v%06d", acked), value, nil)
					if err == nil {
						acked++
						return t.Failed() // another handle leads, whose disk is not full
					}
					want(t, err, party.ErrDiskFull)
					return true
				})
				expect(t, db, "before", "1")
				if acked > 0 {
					expect(t, db, "v000000", string(value))
				}
			}
			s, err := follower.Status(within(t))
			must(t, err)
			if s.Term != 1 {
				t.Errorf("a full disk ended the term: %+v", s)
			}
			fs.set(nil)
			resumes(t, follower)
			resumes(t, leader) // a flush that began before there was room may have failed just now
			if got := len(scan(t, follower, &party.IterOptions{LowerBound: []byte("v"), UpperBound: []byte("w"), KeysOnly: true})); got != acked {
				t.Errorf("%d of %d acknowledged writes, or some that were refused, are there", got, acked)
			}
		})
	}
}

// resumes waits until writes are not refused any more by a disk that was full.
func resumes(t testing.TB, db *party.DB) {
	t.Helper()
	until(t, "writes resume", func() bool {
		err := db.Set(within(t), []byte("after"), []byte("1"), nil)
		if err != nil {
			want(t, err, party.ErrDiskFull)
		}
		return err == nil
	})
}

// TestDB_QuotaUsedUpWhileNobodyLeads: what the disk says of its free space is not what this user may write, so each
// attempt to lead fails, for hours perhaps. It must not leave a half open Pebble behind each time.
func TestDB_QuotaUsedUpWhileNobodyLeads(t *testing.T) {
	if !party.InOwnProcess(t) { // the first attempt may leave one
		return
	}
	fs := newFaultFS()
	o := &party.Options{Pebble: &pebble.Options{FS: fs}}
	dir := newDir(t)
	must(t, open(t, dir, nil).Close()) // so that Pebble has something to read
	p := start(t, config{Dir: dir})
	db := open(t, dir, o)
	set(t, db, "before", "1")
	fs.set(func(op, _ string) error {
		if op == "write" || op == "create" {
			return syscall.EDQUOT
		}
		return nil
	})
	t.Cleanup(func() { fs.set(nil) })
	p.kill()
	get := func() error {
		_, err := db.Get(within(t), []byte("before"))
		return err
	}
	again := func() error {
		_, err := party.Open(within(t), dir, o)
		return err
	}
	want(t, get(), party.ErrDiskFull) // the first attempt of one that has followed may find out in Pebble
	want(t, get(), party.ErrDiskFull)
	want(t, again(), party.ErrDiskFull)
	goroutines := runtime.NumGoroutine()
	for range 3 {
		want(t, get(), party.ErrDiskFull)
		want(t, again(), party.ErrDiskFull)
	}
	if n := runtime.NumGoroutine(); n >= goroutines+3 {
		t.Errorf("from %d goroutines to %d in six attempts", goroutines, n)
	}
	fs.set(nil)
	until(t, "there is a leader again", func() bool { return get() == nil })
	set(t, db, "after", "1")
	if _, err := os.Stat(filepath.Join(dir, "party", "probe")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestDB_DiskFullOnceMemoryIs: that the disk is full is found only when Pebble's memory
// is full as well, of what has been acknowledged. Nobody waits in Pebble then for room
// on the disk: reads go on, writes fail, and the leader can go.
func TestDB_DiskFullOnceMemoryIs(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(map[bool]string{false: "room again", true: "leader closes"}[ends], func(t *testing.T) {
			fs := newFaultFS()
			dir := newDirFor(t, on(nil).Pebble)
			o := on(fs)
			o.Pebble.MemTableSize = 256 << 10
			leader := open(t, dir, o)
			leads(t, leader)
			follower := open(t, dir, on(nil))
			set(t, follower, "before", "1")
			slow := make(chan struct{})
			full := sync.OnceFunc(func() { close(slow) })
			t.Cleanup(func() { fs.set(nil); full() })
			fs.set(func(op, path string) error {
				if op != "create" || !isTable(path) {
					return nil
				}
				<-slow
				return syscall.ENOSPC
			})
			value := string(make([]byte, 32<<10))
			acked := 0
			until(t, "a write waits", func() bool {
				ctx, cancel := context.WithTimeout(within(t), time.Second)
				defer cancel()
				err := follower.Set(ctx, fmt.Appendf(nil, "v%06d", acked), []byte(value), pebble.NoSync)
				if err == nil {
					acked++
					return false
				}
				want(t, err, context.DeadlineExceeded)
				return true
			})
			full()
			for _, db := range []*party.DB{follower, leader} {
				want(t, db.Set(within(t), []byte("refused"), []byte(value), nil), party.ErrDiskFull)
				expect(t, db, "before", "1")
				expect(t, db, fmt.Sprintf("v%06d", acked-1), value)
			}
			if ends {
				want(t, leader.Close(), syscall.ENOSPC)
			} else {
				fs.set(nil)
			}
			resumes(t, follower)
			if ends {
				leads(t, follower)
			}
			for i := range acked {
				expect(t, follower, fmt.Sprintf("v%06d", i), value)
			}
			_, err := follower.Get(within(t), []byte("refused"))
			want(t, err, pebble.ErrNotFound)
		})
	}
}

// TestDB_StepsDown: something on the leader's disk fails that it cannot go on
// after. It says why, another handle takes over, and no call fails.
func TestDB_StepsDown(t *testing.T) {
	if !party.InOwnProcess(t) {
		return
	}
	broken := errors.New("the disk is broken")
	for _, c := range []struct {
		name string
		own  bool // the leader itself writes too
		fail func(op, path string) bool
	}{
		{"sync of the log", false, func(op, path string) bool { return isLog(path) && strings.HasPrefix(op, "sync") }},
		{"sync of the log, own writes", true, func(op, path string) bool { return isLog(path) && strings.HasPrefix(op, "sync") }},
		{"write of the manifest", false, func(op, path string) bool { return isManifest(path) }},
		{"write of the manifest, own writes", true, func(op, path string) bool { return isManifest(path) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newFaultFS()
			dir := newDirFor(t, on(nil).Pebble)
			o := on(fs)
			o.Pebble.MemTableSize = 256 << 10 // flushes often
			causes := make(chan error, 100)
			o.Events.RoleChanged = func(r party.RoleChange) {
				if r.Cause != nil {
					causes <- r.Cause
				}
			}
			leader := open(t, dir, o)
			leads(t, leader)
			follower := open(t, dir, on(nil))
			hasRole(t, follower, party.Following)

			stop := make(chan struct{})
			var acks, ownAcks atomic.Int64
			type result struct {
				counts []int
			}
			results := make(chan result, 2)
			count := func(db *party.DB, name string, acks *atomic.Int64) {
				counts, err := countInto(within(t), db, 2, 1, name, stop, acks)
				if err != nil {
					t.Errorf("%s: a call failed: %v", name, err)
				}
				results <- result{counts}
			}
			writers := 1
			go count(follower, "follower", &acks)
			if c.own {
				writers = 2
				go count(leader, "leader", &ownAcks)
			}
			var padding sync.WaitGroup // so that Pebble has something to flush
			padding.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := follower.Set(within(t), fmt.Append(nil, "pad", i%7), make([]byte, 32<<10), pebble.NoSync); err != nil {
						t.Errorf("padding: %v", err)
						return
					}
				}
			})
			until(t, "writes go on", func() bool { return acks.Load() > 20 })
			fs.set(func(op, path string) error {
				if c.fail(op, path) {
					return broken
				}
				return nil
			})
			if cause := receive(t, "the leader to step down", causes); !strings.Contains(cause.Error(), broken.Error()) {
				t.Errorf("the cause is %v", cause)
			}
			from, own := acks.Load(), ownAcks.Load()
			until(t, "the follower's writes go on", func() bool { return acks.Load() > from+20 || t.Failed() })
			leads(t, follower)
			if c.own {
				until(t, "the old leader's writes go on", func() bool { return ownAcks.Load() > own+20 || t.Failed() })
			}
			close(stop)
			padding.Wait()
			total := make([]int, 2*counters)
			for range writers {
				r := receive(t, "a writer to end", results)
				for i := range total {
					total[i] += r.counts[i]
				}
			}
			for i, n := range total {
				key := fmt.Sprint("cas", i)
				if i >= counters {
					key = fmt.Sprint("merge", i-counters)
				}
				if n > 0 {
					expect(t, follower, key, fmt.Sprint(n))
				}
			}
			fs.set(nil)
		})
	}
}

// TestDB_NobodyCanLead: calls that wait for a leader fail with the reason when
// there can be none, and go on when there can.
func TestDB_NobodyCanLead(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(op string) bool
	}{
		{"writes and syncs", func(op string) bool { return op != "create" }},
		{"syncs", func(op string) bool { return op == "syncdata" }},
		{"slow syncs", func(op string) bool {
			if op == "syncdata" {
				<-time.After(30 * time.Millisecond) // long enough for the others to come by
			}
			return op == "syncdata"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newFaultFS()
			dir := newDirFor(t, on(nil).Pebble)
			db, follower := open(t, dir, on(fs)), open(t, dir, on(fs))
			set(t, db, "a", "1")
			broken := errors.New("the disk is broken")
			fs.set(func(op, path string) error {
				if isLog(path) && c.fail(op) {
					return broken
				}
				return nil
			})
			for _, db := range []*party.DB{db, follower} {
				until(t, "a call fails with the reason", func() bool {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					err := db.Set(ctx, []byte("b"), []byte("2"), nil)
					return err != nil && strings.Contains(err.Error(), broken.Error())
				})
			}
			fs.set(nil)
			until(t, "calls go on", func() bool { return db.Set(within(t), []byte("c"), []byte("3"), nil) == nil })
			expect(t, follower, "a", "1")
		})
	}
}

// TestDB_LocalReadsWhileNobodyCanLead: an attempt to lead that fails leaves replicas alone.
func TestDB_LocalReadsWhileNobodyCanLead(t *testing.T) {
	fs := newFaultFS()
	dir := newDirFor(t, on(nil).Pebble)
	leader := open(t, dir, on(fs))
	o := on(fs)
	o.LocalReads = true
	db := open(t, dir, o)
	set(t, leader, "a", "1")
	until(t, "reads are local", func() bool {
		st, err := db.Status(within(t))
		must(t, err)
		return st.LocalReads
	})
	broken := errors.New("the disk is broken")
	fs.set(func(op, path string) error {
		if isLog(path) && op == "syncdata" {
			return broken
		}
		return nil
	})
	if err := leader.Close(); !errors.Is(err, broken) {
		t.Errorf("Close: %v", err)
	}
	for attempts := 0; attempts < 4; {
		if err := db.Set(within(t), []byte("b"), []byte("2"), nil); err == nil {
			t.Fatal("written")
		} else if strings.Contains(err.Error(), "nobody leads") {
			attempts++
		}
		expect(t, db, "a", "1")
	}
	fs.set(nil)
	until(t, "calls go on", func() bool { return db.Set(within(t), []byte("c"), []byte("3"), nil) == nil })
}
