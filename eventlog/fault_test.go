package eventlog_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

var errDisk = errors.New("disk trouble")

// failNth fails the n-th operation of a kind, or all from it on.
func failNth(kind string, n int, forever bool, err error, written int) func(op) (int, error) {
	return func(o op) (int, error) {
		if o.kind != kind {
			return 0, nil
		}
		if n--; n == 0 || n < 0 && forever {
			return min(written, o.n), err
		}
		return 0, nil
	}
}

// A reader that has entered a segment for which there was no room, and which its
// writer took away again, goes on where the log goes on.
func TestReader_LeavesASegmentThatFoundNoRoom(t *testing.T) {
	for _, rotated := range []bool{false, true} { // does the log go on in a segment of that name, or in another?
		fs, h, o, l := hooked(t)
		add(t, l, true, entry(2, 200))
		var r *eventlog.Reader
		noRoom := failNth("write", 2, false, syscall.ENOSPC, 64)
		h.reset(func(o op) (int, error) {
			n, err := noRoom(o)
			if err != nil { // the header is there
				var oerr error
				r, oerr = eventlog.OpenReader(fs, logDir, 3)
				must(t, oerr)
			}
			return n, err
		})
		if _, err := l.Append([][]byte{[]byte(entry(3, 1900))}, true); !errors.Is(err, syscall.ENOSPC) || r == nil {
			t.Fatalf("append: %v", err)
		}
		want := entry(3, 10)
		if rotated {
			add(t, l, true, want)
		} else {
			must(t, l.Abort())
			l = lead(t, o)
			want = ""
		}
		rec, ok, err := r.Next(l.Last())
		if err != nil || !ok || rec.Seq < 3 || string(rec.Payload) != want {
			t.Errorf("rotated %t: %d, %t, %v", rotated, rec.Seq, ok, err)
		}
		must(t, errors.Join(r.Close(), l.Close()))
	}
}

// A full disk, or any trouble before the frames are written, leaves the log usable.
func TestLog_GoesOnAfterFullDisk(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int // of the entries; large ones need a new segment
		before func(op) (int, error)
	}{
		{"extend", 500, failNth("write", 1, false, syscall.ENOSPC, 0)},
		{"extend, short", 500, failNth("write", 1, false, syscall.ENOSPC, 100)},
		{"create", 1900, failNth("create", 1, false, syscall.ENOSPC, 0)},
		{"write the header", 1900, failNth("write", 1, false, syscall.ENOSPC, 0)},
		{"write the header, short", 1900, failNth("write", 1, false, syscall.ENOSPC, 64)},
		{"write the zeros", 1900, failNth("write", 2, false, syscall.ENOSPC, 64)},
		{"sync the new file", 1900, failNth("sync", 1, false, syscall.ENOSPC, 0)},
		{"sync the new file, quota", 1900, failNth("sync", 1, false, syscall.EDQUOT, 0)},
		{"sync the folder", 1900, failNth("syncdir", 1, false, syscall.ENOSPC, 0)},
		{"write the frames", 10, failNth("write", 1, false, syscall.ENOSPC, 0)},
		{"write the frames, short", 10, failNth("write", 1, false, syscall.ENOSPC, 50)},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, h, o, l := hooked(t)
			add(t, l, true, entry(2, 200))
			h.reset(c.before)
			_, err := l.Append([][]byte{[]byte(entry(3, c.size)), []byte(entry(4, 0))}, true)
			noRoom := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
			if !noRoom || errors.Is(err, eventlog.ErrFailed) || !strings.Contains(err.Error(), ".log") {
				t.Fatalf("append: %v", err)
			}
			if l.Last() != 2 {
				t.Fatalf("last is %d", l.Last())
			}
			if got := mustRead(t, fs, 0); len(got) != 2 {
				t.Fatalf("log holds %v", got)
			}
			h.reset(nil)
			if seq := add(t, l, true, entry(33, c.size), entry(44, 1)); seq != 3 {
				t.Fatalf("appended at %d", seq)
			}
			must(t, l.Abort())
			l = lead(t, o)
			got := entries(mustRead(t, fs, 0))
			if l.Last() != 5 || got[2] != entry(2, 200) || got[3] != entry(33, c.size) || got[4] != entry(44, 1) {
				t.Fatalf("opened again: last %d, %d entries", l.Last(), len(got))
			}
		})
	}
}

// While a new segment cannot be made, nothing more goes to the old one: a power cut could bring back the file.
func TestLog_KeepsTryingTheNewSegment(t *testing.T) {
	fs, h, _, l := hooked(t)
	h.reset(failNth("syncdir", 1, true, syscall.ENOSPC, 0))
	for _, size := range []int{1990, 1} {
		if _, err := l.Append([][]byte{make([]byte, size)}, true); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	h.reset(nil)
	add(t, l, true, "two")
	must(t, l.Close())
	if names, err := fs.List(logDir); err != nil || len(names) != 2 {
		t.Fatalf("segments %v, %v", names, err)
	}
	if got := mustRead(t, fs, 0); len(got) != 2 || got[1].payload != "two" {
		t.Fatalf("log holds %v", got)
	}
}

func TestLog_FailsForGood(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int
		before func(op) (int, error)
	}{
		{"sync", 70, failNth("syncdata", 1, false, errDisk, 0)},
		{"sync of a new segment", 1990, failNth("sync", 1, false, errDisk, 0)},
		{"sync of the folder of a new segment", 1990, failNth("syncdir", 1, false, errDisk, 0)},
		{"frames, and wiping them", 70, failNth("write", 1, true, errDisk, 30)},
		{"frames, and syncing the wiping", 70, func(o op) (int, error) {
			if o.kind == "write" && o.n > 100 && o.n < 140 || o.kind == "syncdata" {
				return o.n, errDisk
			}
			return 0, nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, h, o, l := hooked(t)
			add(t, l, true, entry(2, 20))
			h.reset(c.before)
			_, err := l.Append([][]byte{[]byte(entry(3, c.size))}, true)
			if !errors.Is(err, eventlog.ErrFailed) || !errors.Is(err, errDisk) {
				t.Fatalf("append: %v", err)
			}
			if l.Durable() != 2 {
				t.Fatalf("durable is %d", l.Durable())
			}
			h.reset(nil)
			_, aerr := l.Append([][]byte{{1}}, false)
			_, _, terr := l.StartTerm(time.Unix(1, 0))
			for _, err := range []error{aerr, terr, l.Sync(), l.Close()} {
				if !errors.Is(err, eventlog.ErrFailed) || !errors.Is(err, errDisk) {
					t.Fatalf("afterwards: %v", err)
				}
			}
			if n := h.count("syncdata") + h.count("write"); n != 0 {
				t.Fatalf("%d writes and syncs on a failed log", n)
			}
			l = lead(t, o)
			add(t, l, true, entry(5, 5))
			must(t, l.Close())
			got := entries(mustRead(t, fs, 0))
			if got[2] != entry(2, 20) || got[l.Last()] != entry(5, 5) {
				t.Fatalf("after opening again: %v", got)
			}
		})
	}
}

// After a failed sync the page cache may lie. Open writes again what is not known to be durable; the sync
// behind StartTerm, or before it, syncs that.
func TestLog_RewritesWhatMayNotBeOnTheDisk(t *testing.T) {
	const header, term = 128, 56
	for _, c := range []struct {
		name     string
		hint     uint64
		from, to int64 // written again
		sync     func(*eventlog.Log) error
	}{
		{"unknown", 0, 0, header + term + 3*40, startTerm},
		{"the first of three", 2, header + term + 40, header + term + 3*40, startTerm},
		{"the first of three, then Sync", 2, header + term + 40, header + term + 3*40, (*eventlog.Log).Sync},
		{"all but the reservation behind them", 4, header + term + 120, header + term + 120 + 40, startTerm},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, h, o, l := hooked(t)
			for _, e := range []string{"two", "three", "four"} {
				add(t, l, true, e)
			}
			if c.hint == 4 {
				must(t, l.Close())
			} else {
				must(t, l.Abort())
			}
			h.reset(nil)
			o.DurableHint = c.hint
			l = open(t, o)
			var w []op
			for _, x := range h.ops {
				if x.kind == "write" {
					w = append(w, x)
				}
			}
			if len(w) != 1 || w[0].off != c.from || w[0].off+int64(w[0].n) != c.to || l.Durable() != c.hint {
				t.Fatalf("operations %+v, want a write of %d to %d; durable %d, want %d", h.ops, c.from, c.to, l.Durable(), c.hint)
			}
			must(t, c.sync(l))
			if h.count("syncdata") != 1 || l.Durable() != l.Last() {
				t.Fatalf("operations %+v, want a sync; durable %d", h.ops, l.Durable())
			}
			must(t, l.Abort())
		})
	}
	for _, kind := range []string{"write", "syncdata"} {
		t.Run(kind+" fails", func(t *testing.T) {
			fs := memFS(t)
			must(t, lead(t, small(fs)).Abort())
			h := &hookFS{FS: fs}
			h.reset(failNth(kind, 1, false, errDisk, 0))
			o := small(fs)
			o.FS = h
			l, err := eventlog.Open(logDir, o)
			if err == nil {
				err = errors.Join(startTerm(l), l.Abort())
			}
			if !errors.Is(err, errDisk) {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

func startTerm(l *eventlog.Log) error {
	_, _, err := l.StartTerm(time.Unix(1, 0))
	return errors.Join(err, l.Sync())
}

// A tail that is cut is gone before anything takes its place.
func TestLog_SyncsTheCutOfATornTail(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	add(t, l, true, "two", "three")
	must(t, l.Abort())
	name := fs.PathJoin(logDir, "00000000000000000001.log")
	b := contents(t, fs, name)
	b[128+56+40+2] ^= 1 // in the checksum of the last frame
	put(t, fs, name, b)
	h := &hookFS{FS: fs}
	o := small(fs)
	o.FS, o.DurableHint = h, 2
	l = open(t, o)
	if h.count("sync") != 1 || l.Last() != 2 || l.Durable() != 2 {
		t.Fatalf("operations %+v, last %d, durable %d", h.ops, l.Last(), l.Durable())
	}
	must(t, l.Abort())
}

func TestLog_SyncsNoMoreThanNeeded(t *testing.T) {
	fs := memFS(t)
	h := &hookFS{FS: fs}
	o := small(fs)
	o.FS, o.SegmentBytes, o.ChunkBytes, o.ReserveSeqs = h, 1<<20, 64<<10, 1000
	l := lead(t, o)
	syncs := func() int { return h.count("sync") + h.count("syncdata") + h.count("syncdir") }
	h.reset(nil)
	for i := range 50 {
		add(t, l, true, entry(i, 100), entry(i, 100))
	}
	if h.count("write") != 50 || h.count("syncdata") != 50 || syncs() != 50 {
		t.Fatalf("50 synced groups: %d writes, %d syncs of data, %d syncs", h.count("write"), h.count("syncdata"), syncs())
	}
	size := l.Size()
	for _, x := range h.ops {
		if x.kind == "write" && x.off+int64(x.n) > size {
			t.Fatalf("%+v grows the file of %d bytes", x, size)
		}
	}
	h.reset(nil)
	for i := range 1000 {
		add(t, l, false, entry(i, 5))
	}
	if syncs() != 1 { // the reservation
		t.Fatalf("1000 unsynced groups: %d syncs", syncs())
	}
	h.reset(nil)
	for range 3 {
		must(t, l.Sync())
	}
	if syncs() != 1 {
		t.Fatalf("%d syncs for one need", syncs())
	}
}
