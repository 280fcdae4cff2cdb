package eventlog_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// tenSegments returns a log whose segments begin at 1, 4, 7, … one a minute, of 2048 bytes each, and the options to
// open it again.
func tenSegments(t *testing.T, fs vfs.FS, id eventlog.ID) (*eventlog.Log, eventlog.Options) {
	clock := time.Unix(1000, 0)
	o := small(fs)
	o.ID = id
	o.Now = func() time.Time { return clock }
	l := lead(t, o)
	add(t, l, true, entry(0, 800), entry(1, 800))
	for i := range 9 {
		clock = clock.Add(time.Minute)
		add(t, l, true, entry(i, 500), entry(i, 500), entry(i, 500))
	}
	return l, o
}

func TestLog_Retains(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     eventlog.Retention
		keep  uint64
		first uint64 // afterwards
	}{
		{"all", eventlog.Retention{}, all, 1},
		{"bytes", eventlog.Retention{MaxBytes: 2048 * 4}, all, 19},
		{"bytes exactly", eventlog.Retention{MaxBytes: 2048 * 10}, all, 1},
		{"bytes, less than one", eventlog.Retention{MaxBytes: 1}, all, 28},
		{"age", eventlog.Retention{MaxAge: 150 * time.Second}, all, 19},
		{"age or bytes", eventlog.Retention{MaxAge: 150 * time.Second, MaxBytes: 2048 * 2}, all, 25},
		{"keep", eventlog.Retention{MaxBytes: 1}, 6, 7},
		{"keep the last of a segment", eventlog.Retention{MaxBytes: 1}, 9, 10},
		{"keep everything", eventlog.Retention{MaxBytes: 1}, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memFS(t)
			l, o := tenSegments(t, fs, testID)
			must(t, l.Retain(c.r, c.keep))
			if l.First() != c.first {
				t.Fatalf("first is %d, want %d", l.First(), c.first)
			}
			names, err := fs.List(logDir)
			must(t, err)
			if size := int64(len(names)) * 2048; l.Size() != size {
				t.Fatalf("size is %d, want %d", l.Size(), size)
			}
			must(t, l.Close())
			if l = open(t, o); l.First() != c.first || l.Last() != 30 {
				t.Fatalf("opened again: %d to %d", l.First(), l.Last())
			}
			if got := mustRead(t, fs, 0); got[0].seq != c.first || got[len(got)-1].seq != 30 {
				t.Fatalf("read %d to %d", got[0].seq, got[len(got)-1].seq)
			}
			var ce *eventlog.CompactedError
			if _, err := eventlog.OpenReader(fs, logDir, c.first-1); c.first > 1 && (!errors.As(err, &ce) || ce.First != c.first) {
				t.Fatalf("reader of what was deleted: %v", err)
			}
		})
	}
}

// What is damaged in the middle of the log is deleted when its time comes, and not before. What is not of this log stays.
func TestLog_RetainsPastDamage(t *testing.T) {
	other := memFS(t)
	l, _ := tenSegments(t, other, eventlog.ID{1})
	must(t, l.Close())
	for _, c := range []struct {
		name   string
		firsts []uint64                           // of the segments that are damaged
		damage func(path string, b []byte) []byte // nil: they are removed, once the log is open
		err    error
	}{
		{"none", nil, nil, nil},
		{"bit flip", []uint64{7, 22}, func(_ string, b []byte) []byte { b[40] ^= 1; return b }, nil},
		{"no header", []uint64{7, 22}, func(_ string, b []byte) []byte { clear(b[:128]); return b }, nil},
		{"magic", []uint64{7, 22}, func(_ string, b []byte) []byte { b[0] ^= 1; return b }, nil},
		{"version", []uint64{7, 22}, func(_ string, b []byte) []byte { b[8]++; return b }, nil},
		{"garbage", []uint64{7, 22}, func(_ string, b []byte) []byte { copy(b, strings.Repeat("garbage", 100)); return b }, nil},
		{"one behind the other", []uint64{4, 7, 10, 22, 25}, func(_ string, b []byte) []byte { b[60] ^= 1; return b }, nil},
		{"empty", []uint64{7, 22}, func(string, []byte) []byte { return nil }, nil},
		{"removed", []uint64{7, 22}, nil, nil},
		{"of another log", []uint64{7}, func(path string, _ []byte) []byte { return contents(t, other, path) }, eventlog.ErrForeign},
	} {
		for _, r := range []struct {
			name  string
			r     eventlog.Retention
			keep  uint64
			first uint64
		}{
			{"bytes", eventlog.Retention{MaxBytes: 4 * 2048}, all, 19},
			{"age", eventlog.Retention{MaxAge: 150 * time.Second}, all, 19},
			{"keep", eventlog.Retention{MaxBytes: 1}, 6, 7},
			{"before", eventlog.Retention{Before: 13}, all, 13},
		} {
			t.Run(c.name+"/"+r.name, func(t *testing.T) {
				fs := memFS(t)
				l, o := tenSegments(t, fs, testID)
				must(t, l.Close())
				told := 0
				o.Damaged = func(err error) {
					if !errors.Is(err, eventlog.ErrCorrupt) {
						t.Errorf("told of %v", err)
					}
					told++
				}
				path := func(first uint64) string { return fs.PathJoin(logDir, fmt.Sprintf("%020d.log", first)) }
				for _, first := range c.firsts {
					if c.damage != nil {
						put(t, fs, path(first), c.damage(path(first), contents(t, fs, path(first))))
					}
				}
				l = open(t, o)
				defer l.Abort()
				for _, first := range c.firsts {
					if c.damage == nil {
						must(t, fs.Remove(path(first)))
					}
				}
				for range 2 {
					if err := l.Retain(r.r, r.keep); !errors.Is(err, c.err) {
						t.Fatalf("%v, want %v", err, c.err)
					}
				}
				first := r.first
				switch {
				case c.err != nil:
					first = 1
				case told != len(c.firsts):
					t.Errorf("told of %d, %d are damaged", told, len(c.firsts))
				case r.name == "bytes" && (c.name == "empty" || c.name == "removed"):
					first = 16 // what has gone takes no room
				}
				if l.First() != first {
					t.Fatalf("the log begins at %d, want %d", l.First(), first)
				}
				must(t, l.Abort())
				if c.err == nil {
					return
				}
				// Who reads from there is not given what is of another log.
				if _, err := eventlog.OpenReader(fs, logDir, c.firsts[0]+1); !errors.Is(err, c.err) {
					t.Fatalf("reader: %v", err)
				}
			})
		}
	}
}

// openFS lets Open fail.
type openFS struct {
	vfs.FS
	fail func(path string) error // nil: never
}

func (f *openFS) Open(path string, o ...vfs.OpenOption) (vfs.File, error) {
	if f.fail != nil {
		if err := f.fail(path); err != nil {
			return nil, err
		}
	}
	return f.FS.Open(path, o...)
}

// A file that cannot be opened now is not damaged: the next call finds out.
func TestLog_RetainTriesAgain(t *testing.T) {
	fs := &openFS{FS: memFS(t)}
	l, o := tenSegments(t, fs, testID)
	must(t, l.Close())
	o.Damaged = func(err error) { t.Errorf("told of %v", err) }
	l = open(t, o)
	defer l.Abort()
	fs.fail = func(path string) error { return syscall.EMFILE }
	r := eventlog.Retention{MaxAge: 150 * time.Second}
	if err := l.Retain(r, all); !errors.Is(err, syscall.EMFILE) {
		t.Fatal(err)
	}
	fs.fail = nil
	if must(t, l.Retain(r, all)); l.First() != 19 {
		t.Errorf("the log begins at %d", l.First())
	}
}

// Nor does it make the log a corrupt one that a last file without a header cannot be looked into.
func TestLog_OpenSaysWhatFailed(t *testing.T) {
	fs := &openFS{FS: memFS(t)}
	l := lead(t, small(fs))
	must(t, l.Abort())
	unborn := fs.PathJoin(logDir, fmt.Sprintf("%020d.log", l.Last()+1))
	put(t, fs, unborn, nil)
	looks := 0
	fs.fail = func(path string) error {
		if path == unborn {
			looks++
		}
		if looks == 2 {
			return syscall.EIO
		}
		return nil
	}
	if _, err := eventlog.Open(logDir, small(fs)); !errors.Is(err, syscall.EIO) || errors.Is(err, eventlog.ErrCorrupt) {
		t.Fatal(err)
	}
	must(t, open(t, small(fs)).Abort())
}

// What is named like a segment and is none of ours is not deleted, and nothing before it: nobody knows what it is.
func TestLog_RetainLeavesWhatIsNotOurs(t *testing.T) {
	fs := memFS(t)
	l, o := tenSegments(t, fs, testID)
	must(t, l.Close())
	path := fs.PathJoin(logDir, fmt.Sprintf("%020d.log", 8))
	put(t, fs, path, []byte(strings.Repeat("mine", 100)))
	l = open(t, o)
	defer l.Abort()
	err := l.Retain(eventlog.Retention{MaxBytes: 1}, all)
	if !errors.Is(err, eventlog.ErrForeign) || !strings.Contains(err.Error(), path) || l.First() != 1 {
		t.Fatalf("%v, and the log begins at %d", err, l.First())
	}
	if b := contents(t, fs, path); len(b) != 400 {
		t.Fatalf("%d bytes", len(b))
	}
}

// One that comes too late does not take what the next leader has deleted for damage.
func TestLog_RetainsNothingOnceClosed(t *testing.T) {
	fs := memFS(t)
	l, o := tenSegments(t, fs, testID)
	must(t, l.Close())
	o.Damaged = func(err error) { t.Errorf("told of %v", err) }
	late := open(t, o)
	must(t, late.Abort())
	next := open(t, o)
	must(t, next.Retain(eventlog.Retention{MaxBytes: 1}, all))
	if err := late.Retain(eventlog.Retention{MaxBytes: 1}, all); !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("late: %v", err)
	}
	must(t, next.Abort())
}

func TestReader_CompactedUnderneath(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	r, err := eventlog.OpenReader(fs, logDir, 0)
	must(t, err)
	defer r.Close()
	for i := range 20 {
		add(t, l, true, entry(i, 900))
	}
	if _, ok, err := r.Next(l.Last()); !ok || err != nil {
		t.Fatalf("first record: %v, %v", ok, err)
	}
	must(t, l.Retain(eventlog.Retention{MaxBytes: 6000}, all))
	for range 2 {
		for {
			rec, ok, nerr := r.Next(l.Last())
			if err = nerr; !ok {
				break
			}
			if rec.Seq > 3 {
				t.Fatalf("read %d", rec.Seq)
			}
		}
		var ce *eventlog.CompactedError
		if !errors.As(err, &ce) || ce.First != l.First() {
			t.Fatalf("got %v, want the log to start at %d", err, l.First())
		}
	}
}
