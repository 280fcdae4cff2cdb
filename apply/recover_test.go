package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// closed returns a directory whose leader has closed cleanly, or was killed
// after a flush and 20 more writes.
func closed(t testing.TB, clean bool) *vfs.MemFS {
	t.Helper()
	fs := memFS(t)
	n, err := join(small(fs), eventlog.Options{SegmentBytes: 1 << 10, ChunkBytes: 1 << 10})
	must(t, err)
	must(t, n.begin())
	c := newClient("a")
	for i := range 40 {
		n.commit(t, c.set(fmt.Sprint("k", i), strings.Repeat("v", 100)))
		if i == 19 {
			must(t, n.m.Flush(nil))
		}
	}
	must(t, n.end(clean))
	return fs
}

func TestMachine_RecoverReportsContradictions(t *testing.T) {
	open := func(fs vfs.FS) error {
		n, err := join(small(fs), eventlog.Options{})
		if err == nil {
			must(t, n.end(false))
		}
		return err
	}
	segments := func(fs vfs.FS) []string {
		names, err := fs.List(logDir)
		must(t, err)
		slices.Sort(names)
		return names
	}
	t.Run("log of another database", func(t *testing.T) {
		fs, other := closed(t, true), closed(t, true)
		must(t, fs.RemoveAll(logDir))
		_, err := vfs.Clone(other, fs, logDir, logDir)
		must(t, err)
		lock, m := openMachine(t, fs)
		defer lock()
		log, err := eventlog.Open(logDir, eventlog.Options{FS: fs})
		must(t, err)
		err = m.Recover(log)
		if !errors.Is(err, apply.ErrCorrupt) || !strings.Contains(err.Error(), m.ID().String()) || !strings.Contains(err.Error(), log.ID().String()) {
			t.Error(err)
		}
		must(t, errors.Join(m.Close(false), log.Abort()))
	})
	t.Run("state ahead of the log", func(t *testing.T) {
		fs := closed(t, false)
		lock, m := openMachine(t, fs)
		defer lock()
		must(t, fs.RemoveAll(logDir))
		log, err := eventlog.Open(logDir, eventlog.Options{FS: fs, ID: m.ID()})
		must(t, err)
		if err := m.Recover(log); !errors.Is(err, apply.ErrCorrupt) || !strings.Contains(err.Error(), "ends at 0") {
			t.Error(err)
		}
		must(t, errors.Join(m.Close(false), log.Abort()))
	})
	t.Run("gap between state and log", func(t *testing.T) {
		fs := closed(t, false)
		names := segments(fs)
		for _, name := range names[:len(names)-1] {
			must(t, fs.Remove(fs.PathJoin(logDir, name)))
		}
		if err := open(fs); !errors.Is(err, apply.ErrCorrupt) || !strings.Contains(err.Error(), "the state ends at") {
			t.Error(err)
		}
	})
	t.Run("Pebble's files lost", func(t *testing.T) {
		fs := closed(t, false)
		must(t, fs.Remove(fs.PathJoin(logDir, segments(fs)[0])))
		names, err := fs.List(dbDir)
		must(t, err)
		for _, name := range names {
			if name != "party" {
				must(t, fs.Remove(fs.PathJoin(dbDir, name)))
			}
		}
		if err := open(fs); !errors.Is(err, apply.ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("foreign entry", func(t *testing.T) {
		fs := memFS(t)
		n := lead(t, small(fs))
		_, err := n.log.Append([][]byte{[]byte("not an entry, but long enough to look like one")}, true)
		must(t, err)
		must(t, n.end(false))
		if err := open(fs); !errors.Is(err, apply.ErrIncompatible) {
			t.Error(err)
		}
	})
}

func lockDir(fs vfs.FS) (*pebble.Lock, error) { return pebble.LockDirectory(dbDir, fs) }

func openMachine(t testing.TB, fs vfs.FS) (unlock func(), m *apply.Machine) {
	t.Helper()
	n := &node{}
	o := small(fs)
	var err error
	n.lock, err = lockDir(fs)
	must(t, err)
	m, err = apply.Open(dbDir, o, n.lock, quiet)
	must(t, err)
	return func() { must(t, n.lock.Close()) }, m
}

func TestMachine_CleanOnlyAfterCleanClose(t *testing.T) {
	for _, clean := range []bool{true, false} {
		unlock, m := openMachine(t, closed(t, clean))
		if is, err := m.Clean(); err != nil || is != clean {
			t.Errorf("Clean is %v, %v after Close(%v)", is, err, clean)
		}
		must(t, m.Close(false))
		unlock()
	}
	// A leader after a clean one that is killed after a flush.
	fs := closed(t, true)
	n := lead(t, small(fs))
	n.commit(t, newClient("b").set("k", "v"))
	must(t, n.m.Flush(nil))
	must(t, n.end(false))
	unlock, m := openMachine(t, fs)
	defer unlock()
	if clean, err := m.Clean(); err != nil || clean {
		t.Errorf("Clean is %v, %v after a kill", clean, err)
	}
	must(t, m.Close(false))
}

// After a power cut the term record lies above a gap. When it begins a segment
// and all before it is retired, the log seems to start above the state.
func TestMachine_RecoversOverGapBeforeTerm(t *testing.T) {
	fs := memFS(t)
	lo := eventlog.Options{SegmentBytes: 1 << 10, ChunkBytes: 1 << 10, ReserveSeqs: 1000}
	n, err := join(small(fs), lo)
	must(t, err)
	must(t, n.begin())
	defer n.end(false)
	c := newClient("a")
	n.commit(t, c.set("k", "v")) // reserves numbers
	for range 50 {
		cmd := c.set("k", strings.Repeat("v", int(c.number)))
		cmd.Sync = true
		last := n.commit(t, cmd)[0].Seq
		crashed := fs.CrashClone(vfs.CrashCloneCfg{})
		next, err := join(small(crashed), lo)
		must(t, err)
		must(t, next.m.Flush(nil))
		_, term, err := next.log.StartTerm(time.Unix(1, 0))
		must(t, err)
		if term == last+1 {
			t.Fatal("no gap")
		}
		must(t, next.log.Retain(eventlog.Retention{MaxBytes: 1}, last))
		found := next.log.First() == term
		must(t, next.end(false))
		again, err := join(small(crashed.CrashClone(vfs.CrashCloneCfg{})), lo)
		if err != nil {
			t.Fatalf("the log starts at %d, the state ends at %d: %v", term, last, err)
		}
		must(t, again.end(false))
		if found {
			return
		}
	}
	t.Fatal("no term record began a segment: this test shows nothing")
}

// tableFS counts the tables that are opened.
type tableFS struct {
	vfs.FS
	tables atomic.Int64
}

func (f *tableFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		f.tables.Add(1)
	}
	return f.FS.Open(name, o...)
}

// A new leader finds its bookkeeping in the newest table, whatever that has to say of
// origins and cursors that have not written for long. To open others takes it a while.
func TestMachine_FindsBookkeepingInOneTable(t *testing.T) {
	for _, cursors := range []bool{true, false} {
		t.Run(fmt.Sprint("cursors ", cursors), func(t *testing.T) {
			fs := &tableFS{FS: memFS(t)}
			o := small(fs)
			o.DisableAutomaticCompactions = true
			n := lead(t, o)
			old, c := newClient("old"), newClient("new")
			write := old.set("k", "v")
			first := n.commit(t, write)[0]
			if cursors {
				n.commit(t, move(1, "name", -1, 1))
			}
			const flushes = 4
			for i := range flushes {
				must(t, n.m.Flush(nil))
				n.commit(t, c.set("k", fmt.Sprint(i)))
				n.commit(t, c.set("l", fmt.Sprint(i)))
			}
			for {
				begun, err := n.m.FlushSoon()
				must(t, err)
				if begun {
					break
				}
			}
			must(t, n.m.Flush(nil)) // has nothing to do but wait
			must(t, n.end(false))

			lock, err := lockDir(fs)
			must(t, err)
			o.DisableTableStats = true // it opens all of them, at any time
			m, err := apply.Open(dbDir, o, lock, quiet)
			must(t, err)
			if opened := fs.tables.Swap(0); opened != 1 {
				t.Errorf("opened %d tables", opened)
			}
			must(t, errors.Join(m.Close(false), lock.Close()))
			n = lead(t, small(fs))
			if a := n.commit(t, retry(write))[0]; a != first {
				t.Errorf("sent again: %+v, want %+v", a, first)
			}
			if got := len(n.m.Cursors()); got != 1 && cursors || got != 0 && !cursors {
				t.Errorf("%d cursors", got)
			}
		})
	}
}
