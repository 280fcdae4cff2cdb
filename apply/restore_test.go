package apply_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
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

// Cursors are what they were, also in memory and after a DeleteRange over
// everything that a later batch of entries holds.
func TestRestorer_Cursors(t *testing.T) {
	fs := memFS(t)
	from := apply.Lineage{Database: eventlog.ID{1}, Seq: 50}
	r, err := apply.NewRestorer(dbDir, small(fs), quiet, eventlog.ID{2}, from, time.Unix(7, 0))
	must(t, err)
	for i := range 3 {
		must(t, r.Cursor(apply.Cursor{Name: string(rune('a' + i)), Seq: uint64(48 + i)}))
	}
	for what, c := range map[string]apply.Cursor{
		"there already": {Name: "a", Seq: 1}, "without a name": {Seq: 1}, "behind the state": {Name: "x", Seq: 51},
		"a name that is too long": {Name: strings.Repeat("x", apply.MaxCursorName+1)},
	} {
		if err := r.Cursor(c); !errors.Is(err, apply.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, r.Finish(50))
	must(t, r.Close())

	// The entries of a database that went on from there.
	other := lead(t, small(memFS(t)))
	other.commit(t, move(1, "a", -1, 48), move(2, "b", -1, 49), move(3, "c", -1, 50))
	wipe := apply.Command{Origin: apply.Origin{1}, Number: 4, Low: 4, Repr: apply.ReprDeleteRange([]byte{0}, []byte("\xff\xff\xff"))}
	first := other.commit(t, wipe, move(5, "a", 48, 60), move(6, "b", 49, -1), move(7, "d", -1, 61))[0].Seq
	all, err := readLog(other.fs, first)
	must(t, err)
	r, err = apply.OpenRestorer(dbDir, small(fs), quiet)
	must(t, err)
	for i := range uint64(4) {
		must(t, r.Entry(70+i, []byte(all[first+i].payload)))
	}
	must(t, r.Finish(74))
	must(t, r.Close())
	want := []apply.Cursor{{Name: "a", Seq: 60}, {Name: "d", Seq: 61}, {Name: "c", Seq: 50}}
	n, err := join(small(fs), eventlog.Options{After: 74})
	must(t, err)
	t.Cleanup(func() { _ = n.end(false) })
	if got := n.m.Cursors(); !reflect.DeepEqual(got, want) {
		t.Errorf("cursors %v, want %v", got, want)
	}
	v := n.m.View()
	defer v.Close()
	if got, err := v.Cursors(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("of the view %v, %v, want %v", got, err, want)
	}
}

func TestRestorer_RefusesTooManyCursors(t *testing.T) {
	from := apply.Lineage{Database: eventlog.ID{1}, Seq: 50}
	r, err := apply.NewRestorer(dbDir, small(memFS(t)), quiet, eventlog.ID{2}, from, time.Unix(7, 0))
	must(t, err)
	defer func() { must(t, r.Close()) }()
	for i := range apply.MaxCursors {
		must(t, r.Cursor(apply.Cursor{Name: fmt.Sprint(i)}))
	}
	if err := r.Cursor(apply.Cursor{Name: "x"}); !errors.Is(err, apply.ErrCorrupt) {
		t.Errorf("one more: %v", err)
	}
}
