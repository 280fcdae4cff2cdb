package eventlog_test

import (
	"errors"
	"fmt"
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
		damage func(path string, b []byte) []byte // of the segments that begin at 7 and 22
		err    error
	}{
		{"none", func(_ string, b []byte) []byte { return b }, nil},
		{"bit flip", func(_ string, b []byte) []byte { b[40] ^= 1; return b }, eventlog.ErrCorrupt},
		{"no header", func(_ string, b []byte) []byte { clear(b[:128]); return b }, eventlog.ErrCorrupt},
		{"empty", func(string, []byte) []byte { return nil }, eventlog.ErrCorrupt},
		{"removed", nil, eventlog.ErrCorrupt},
		{"not a segment", func(_ string, b []byte) []byte { b[0] ^= 1; return b }, eventlog.ErrForeign},
		{"newer", func(_ string, b []byte) []byte { b[8]++; return b }, eventlog.ErrVersion},
		{"of another log", func(path string, _ []byte) []byte { return contents(t, other, path) }, eventlog.ErrForeign},
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
				l = open(t, o)
				defer l.Abort()
				for _, first := range []uint64{7, 22} {
					path := fs.PathJoin(logDir, fmt.Sprintf("%020d.log", first))
					if c.damage == nil {
						must(t, fs.Remove(path))
						continue
					}
					put(t, fs, path, c.damage(path, contents(t, fs, path)))
				}
				err := l.Retain(r.r, r.keep)
				if !errors.Is(err, c.err) {
					t.Fatalf("%v, want %v", err, c.err)
				}
				var damaged *eventlog.CorruptError
				if corrupt := errors.As(err, &damaged); corrupt && (damaged.File == "" || damaged.Seq != 22) {
					t.Fatalf("%+v", damaged)
				} else if err != nil && !corrupt {
					if l.First() != 1 {
						t.Fatalf("the log begins at %d", l.First())
					}
					return
				}
				must(t, l.Retain(r.r, r.keep)) // it tells once
				first := r.first
				if r.name == "bytes" && (c.name == "empty" || c.name == "removed") {
					first = 16 // what has gone takes no room
				}
				if l.First() != first {
					t.Fatalf("the log begins at %d, want %d", l.First(), first)
				}
			})
		}
	}
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
