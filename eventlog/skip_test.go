package eventlog_test

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// From every place to every place of a log of several segments, with the ones in between there or deleted.
func TestReader_SkipTo(t *testing.T) {
	for name, retain := range map[string]bool{"whole log": false, "old segments deleted": true} {
		t.Run(name, func(t *testing.T) {
			fs := memFS(t)
			l := lead(t, small(fs))
			for i := range 60 {
				add(t, l, true, entry(i, 200))
			}
			last := l.Last()
			for at := uint64(1); at <= last; at += 7 {
				readers := map[uint64]*eventlog.Reader{}
				for to := at; to <= last+1; to++ {
					r, err := eventlog.OpenReader(fs, logDir, at)
					must(t, err)
					rec, ok, err := r.Next(last)
					if err != nil || !ok || rec.Seq != at {
						t.Fatalf("record %d: %d, %t, %v", at, rec.Seq, ok, err)
					}
					readers[to] = r
				}
				if retain {
					must(t, l.Retain(eventlog.Retention{MaxBytes: 1}, last))
				}
				for to, r := range readers {
					r.SkipTo(to)
					checkSkipped(t, r, l, at, to, last)
					must(t, r.Close())
				}
				if retain {
					return // what is left is one segment
				}
			}
		})
	}
}

// From every place back to every place.
func TestReader_Rewind(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	for i := range 40 {
		add(t, l, true, entry(i, 200))
	}
	last := l.Last()
	r, err := eventlog.OpenReader(fs, logDir, 1)
	must(t, err)
	check := func(from, to uint64) {
		t.Helper()
		for want := from; want <= to; want++ {
			rec, ok, err := r.Next(last)
			if err != nil || !ok || rec.Seq != want {
				t.Fatalf("from %d: %d, %t, %v, want %d", from, rec.Seq, ok, err, want)
			}
		}
	}
	for at := uint64(1); at <= last; at += 3 {
		for to := uint64(1); to <= at; to += 2 {
			must(t, r.Rewind(at))
			check(at, at)
			must(t, r.Rewind(to))
			check(to, at)
		}
	}
	must(t, r.Rewind(last))
	check(last, last)
	must(t, l.Retain(eventlog.Retention{MaxBytes: 1}, last))
	if err := r.Rewind(1); !errors.Is(err, eventlog.ErrCompacted) {
		t.Fatalf("to what was deleted: %v", err)
	}
	add(t, l, true, "more")
	last++
	check(last, last) // it is where it was
	must(t, r.Close())
	if err := r.Rewind(1); !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("closed: %v", err)
	}
}

func checkSkipped(t *testing.T, r *eventlog.Reader, l *eventlog.Log, at, to, last uint64) {
	t.Helper()
	next := max(to, at+1)
	for {
		rec, ok, err := r.Next(last)
		if errors.Is(err, eventlog.ErrCompacted) && next < l.First() {
			return
		}
		must(t, err)
		if !ok {
			break
		}
		if rec.Seq != next || rec.Prev != next-1 {
			t.Fatalf("from %d to %d: got %d behind %d, want %d", at, to, rec.Seq, rec.Prev, next)
		}
		next++
	}
	if next != max(last, at)+1 {
		t.Fatalf("from %d to %d: ended before %d", at, to, next)
	}
}

// A term record that leaves a gap says what is before the gap, and so does the log that begins with it.
func TestReader_GapBeforeTerm(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	for i := range 5 {
		add(t, l, false, entry(i, 900))
	}
	must(t, l.Sync())
	kept := l.Last()
	add(t, l, false, entry(5, 10))
	must(t, l.Abort())
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	l = lead(t, small(crashed))
	term := l.Last()
	if term <= kept+1 {
		t.Fatalf("the next term begins at %d, there is no gap behind %d", term, kept)
	}
	r, err := eventlog.OpenReader(crashed, logDir, kept+1)
	must(t, err)
	rec, ok, err := r.Next(term)
	if err != nil || !ok || rec.Seq != term || rec.Prev != kept {
		t.Fatalf("got %d behind %d, %t, %v; want %d behind %d", rec.Seq, rec.Prev, ok, err, term, kept)
	}
	must(t, r.Close())
}
