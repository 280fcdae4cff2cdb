package eventlog_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func TestLog_Retains(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		r     eventlog.Retention
		keep  uint64
		first uint64 // afterwards; segments begin at 1, 4, 7, … one a minute, 2048 bytes each
	}{
		{"all", eventlog.Retention{}, all, 1},
		{"bytes", eventlog.Retention{MaxBytes: 2048 * 4}, all, 19},
		{"bytes exactly", eventlog.Retention{MaxBytes: 2048 * 10}, all, 1},
		{"bytes, less than one", eventlog.Retention{MaxBytes: 1}, all, 28},
		{"age", eventlog.Retention{MaxAge: 150 * time.Second}, all, 19},
		{"age or bytes", eventlog.Retention{MaxAge: 150 * time.Second, MaxBytes: 2048 * 2}, all, 25},
		{"keep", eventlog.Retention{MaxBytes: 1}, 8, 7},
		{"keep the last of a segment", eventlog.Retention{MaxBytes: 1}, 9, 10},
		{"keep everything", eventlog.Retention{MaxBytes: 1}, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memFS(t)
			clock := now
			o := small(fs)
			o.Now = func() time.Time { return clock }
			l := lead(t, o)
			add(t, l, true, entry(0, 800), entry(1, 800))
			for i := range 9 {
				clock = clock.Add(time.Minute)
				add(t, l, true, entry(i, 500), entry(i, 500), entry(i, 500))
			}
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
