package apply_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// restored makes a state at 50 in dbDir, of a database that is not there.
func restored(t testing.TB) *node {
	t.Helper()
	fs := memFS(t)
	from := apply.Lineage{Database: eventlog.ID{1}, Seq: 50}
	r, err := apply.NewRestorer(dbDir, small(fs), quiet, eventlog.ID{2}, from, time.Unix(7, 0))
	must(t, err)
	must(t, r.Set([]byte("a"), []byte("1")))
	for key, what := range map[string]string{"a": "the same key again", "A": "one out of order", apply.ReservedPrefix + "x\x00": "a reserved one"} {
		if err := r.Set([]byte(key), nil); !errors.Is(err, apply.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, r.Finish(50))
	must(t, r.Close())
	n, err := join(small(fs), eventlog.Options{After: 50})
	must(t, err)
	t.Cleanup(func() { _ = n.end(false) })
	must(t, n.begin())
	return n
}

func TestRestorer_NumbersAndTimeGoOn(t *testing.T) {
	n := restored(t)
	if n.m.ID() != (eventlog.ID{2}) || n.log.First() <= 50 || n.term <= 50 {
		t.Errorf("database %s, first %d, term at %d", n.m.ID(), n.log.First(), n.term)
	}
	if v := n.get(t, "a"); v != "1" {
		t.Errorf("a is %q", v)
	}
	n.clock = 0
	a := n.commit(t, newClient("c").set("b", "2"))
	if a[0].Seq <= n.term {
		t.Errorf("%+v", a)
	}
	all, err := readLog(n.fs, a[0].Seq)
	must(t, err)
	e, err := apply.DecodeEntry([]byte(all[a[0].Seq].payload))
	must(t, err)
	if e.Time.Before(time.Unix(7, 0)) {
		t.Errorf("time goes back to %s", e.Time)
	}
}

// A handle of the old database cannot know whether its write is in the backup.
func TestRestorer_WritesOfBeforeAreUnknown(t *testing.T) {
	n := restored(t)
	before, after := newClient("before").set("a", "x"), newClient("after").set("b", "y")
	before.Retry, before.Since = true, 49
	after.Retry, after.Since = true, 51
	a := n.commit(t, before, after)
	if a[0].Outcome != apply.OutcomeForgotten || a[1].Outcome != apply.OutcomeDone {
		t.Errorf("%+v", a)
	}
}
