package eventlog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// outcome is what an Open, and a term behind it, make of a directory.
func outcome(t *testing.T, path string, b []byte, o eventlog.Options, from eventlog.Position) string {
	t.Helper()
	fs := memFS(t)
	must(t, fs.MkdirAll(logDir, 0o700))
	put(t, fs, path, b)
	o.FS, o.From = fs, from
	l, err := eventlog.Open(logDir, o)
	if err != nil {
		var c *eventlog.CorruptError
		if !errors.As(err, &c) {
			t.Fatal(err)
		}
		return err.Error()
	}
	defer l.Abort()
	s := fmt.Sprint(l.First(), l.Last(), l.Durable(), l.Term())
	term, seq, err := l.StartTerm(time.Unix(1, 0))
	must(t, errors.Join(err, l.Sync()))
	add(t, l, true, "new")
	for _, first := range []uint64{1, from.Last, from.Last + 1, seq} {
		r, err := l.OpenReader(first)
		must(t, err)
		for {
			rec, ok, err := r.Next(all)
			if err != nil {
				s += err.Error()
			}
			if err != nil || !ok {
				break
			}
			s += fmt.Sprint(" ", rec.Seq, rec.Term, rec.Kind, len(rec.Payload))
		}
		must(t, r.Close())
	}
	must(t, l.Close())
	return s + fmt.Sprint(term, seq, string(contents(t, fs, path)))
}

// TestOpen_From: whatever a crash has left behind a position of the log, Open makes the same of it from there as
// from the beginning; and what is no position of it does no harm.
func TestOpen_From(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	used := 0
	for round := range 300 {
		fs := memFS(t)
		o := small(fs)
		o.SegmentBytes, o.ReserveSeqs = 1<<16, 1+uint64(rng.IntN(8))
		l := lead(t, o)
		var at []eventlog.Position
		for n := range 2 + rng.IntN(30) {
			var group []string
			for range 1 + rng.IntN(3) {
				group = append(group, entry(n, rng.IntN(300)))
			}
			add(t, l, rng.IntN(2) == 0, group...)
			if p := l.Position(); p != (eventlog.Position{}) && p.Last <= l.Durable() {
				at = append(at, p)
			}
		}
		o.DurableHint = l.Durable()
		if rng.IntN(3) == 0 { // a commit word of some time before
			o.DurableHint = rng.Uint64N(o.DurableHint + 1)
		}
		must(t, l.Abort())
		path := lastFile(t, fs)
		b := contents(t, fs, path)
		if rng.IntN(3) == 0 { // the power is cut in the middle of what is not durable, or something rots there
			p := at[len(at)-1]
			for i := range b[p.Offset:] {
				if rng.IntN(64) == 0 {
					b[int(p.Offset)+i] = byte(rng.IntN(256))
				}
			}
		}
		for _, p := range at {
			bad := p
			switch rng.IntN(4) {
			case 0:
				bad.Offset += 8 * int64(rng.IntN(2000)-1000)
			case 1:
				bad.Last += uint64(rng.IntN(9)) - 4
			case 2:
				bad.Segment++
			case 3:
				bad.Offset = int64(rng.Uint64())
			}
			for _, from := range []eventlog.Position{p, bad} {
				got, want := outcome(t, path, b, o, from), outcome(t, path, b, o, eventlog.Position{Last: from.Last})
				if got != want {
					t.Fatalf("round %d, %+v of %+v: %q, from the beginning %q", round, from, p, got, want)
				}
			}
			used++
		}
	}
	if used < 1000 {
		t.Fatal("only", used)
	}
}

// TestOpen_FromGoesOverNothingElse: damage before it is left to whoever reads there.
func TestOpen_FromGoesOverNothingElse(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.SegmentBytes = 1 << 16
	l := lead(t, o)
	for n := range 20 {
		add(t, l, true, entry(n, 100))
	}
	o.From, o.DurableHint = l.Position(), l.Durable()
	must(t, l.Abort())
	path := lastFile(t, fs)
	b := slices.Clone(contents(t, fs, path))
	b[o.From.Offset/2] ^= 1
	put(t, fs, path, b)
	l = open(t, o)
	r, err := l.OpenReader(o.From.Last + 1)
	must(t, err)
	defer r.Close()
	if rec, ok, err := r.Next(all); err != nil || !ok || rec.Seq != o.From.Last+1 {
		t.Errorf("%+v, %v, %v", rec, ok, err)
	}
	if got, err := read(fs, logDir, 0, l.Last()); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Errorf("read %d records, then %v", len(got), err)
	}
	must(t, l.Abort())
	o.From = eventlog.Position{}
	if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Errorf("from the beginning: %v", err)
	}
}
