package apply_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// noted returns the directory of a leader that was killed. It has written down what the next
// one needs, and logged cmds before and one more entry behind that.
func noted(t testing.TB, cmds ...apply.Command) *vfs.MemFS {
	t.Helper()
	fs := memFS(t)
	n, err := join(small(fs), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	n.notes = true
	for _, c := range cmds {
		c.Sync = true
		n.commit(t, c)
	}
	n.notes = false
	last := newClient("last").set("last", "1")
	last.Sync = true
	n.commit(t, last)
	must(t, n.end(false))
	return fs
}

// resumed is resume for a test that needs it to.
func resumed(t testing.TB, fs vfs.FS) *node {
	t.Helper()
	n, err := resume(small(fs), eventlog.Options{})
	must(t, err)
	if n == nil {
		t.Fatal("what the last leader wrote down is of no use")
	}
	t.Cleanup(func() { _ = n.end(false) })
	return n
}

// A leader judges, and logs, while Pebble has not been touched; reads wait. Then it opens
// Pebble and comes to the same state as ever.
func TestResume_JudgesBeforePebbleIsOpen(t *testing.T) {
	c := newClient("a")
	one, two := c.set("one", "1"), c.set("two", "2")
	two.Low = one.Number // neither has an answer yet
	fs := noted(t, one, two, move(1, "cursor", -1, 1))
	hook := &hookFS{FS: fs}
	n := resumed(t, hook)
	touched := ""
	hook.hook(func(o op) error {
		if strings.HasPrefix(o.path, dbDir+"/") && !strings.HasPrefix(o.path, dbDir+"/party/") {
			touched += " " + o.kind + " " + o.path
		}
		return nil
	}, nil)
	must(t, n.begin())
	again := retry(two)
	again.Low = one.Number
	if a := n.commit(t, again)[0]; a.Outcome != apply.OutcomeDone || a.Seq >= n.term {
		t.Errorf("a command that is in the log already: %+v", a)
	}
	n.commit(t, newClient("b").set("three", "3"))
	if got := n.m.Cursors(); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("cursors %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := n.m.WaitApplied(ctx, n.log.Last()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read that did not wait: %v", err)
	}
	if d, err := n.m.Durable(); d != 0 || err != nil {
		t.Error(d, err)
	}
	if begun, err := n.m.FlushSoon(); begun || err != nil {
		t.Error(begun, err)
	}
	stop := make(chan struct{})
	close(stop)
	must(t, n.m.Flush(stop))
	if touched != "" {
		t.Fatal("Pebble's files were touched:", touched)
	}
	n.m.Replay(t.Context())
	must(t, n.m.WaitApplied(t.Context(), n.log.Last()))
	must(t, n.m.CatchUp(t.Context()))
	if touched == "" {
		t.Error("the hook sees nothing of Pebble")
	}
	if n.m.Replayed() == 0 {
		t.Error("nothing was replayed")
	}
	if got := n.get(t, "one") + n.get(t, "two") + n.get(t, "last") + n.get(t, "three"); got != "1213" {
		t.Errorf("the state has %q", got)
	}
	same(t, "state", derived(t, n.m), derived(t, replayed(t, fs)))
}

// Who waits for the state says so, and who only writes does not: Pebble may be opened a little
// later for that.
func TestResume_TellsThatTheStateIsWanted(t *testing.T) {
	for name, call := range map[string]func(*node) error{
		"WaitApplied": func(n *node) error { return n.m.WaitApplied(t.Context(), n.log.Last()) },
		"Flush":       func(n *node) error { return n.m.Flush(nil) },
		"Checkpoint":  func(n *node) error { return n.m.Checkpoint(dbDir + "/there") },
	} {
		n := resumed(t, noted(t, newClient("a").set("one", "1")))
		must(t, n.begin())
		n.commit(t, newClient("b").set("two", "2"))
		must(t, n.m.WaitJudged(t.Context(), n.log.Last()))
		select {
		case <-n.m.Wanted():
			t.Errorf("%s: wanted before", name)
		default:
		}
		done := make(chan error, 1)
		go func() { done <- call(n) }()
		select {
		case <-n.m.Wanted():
		case <-time.After(20 * time.Second):
			t.Fatal(name, "does not say that it waits")
		}
		n.m.Replay(t.Context())
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// It may be closed before it was ever opened: nothing is lost, and a clean end completes
// the state.
func TestResume_ClosesUnopened(t *testing.T) {
	for _, clean := range []bool{false, true} {
		n := resumed(t, noted(t, newClient("a").set("one", "1")))
		fs := n.fs
		must(t, n.begin())
		n.commit(t, newClient("b").set("two", "2"))
		must(t, n.end(clean))
		o := small(fs)
		m, err := join(o, eventlog.Options{})
		must(t, err)
		if got := m.get(t, "one") + m.get(t, "two"); got != "12" {
			t.Errorf("clean %v: the state has %q", clean, got)
		}
		if ok, err := m.m.Clean(); ok != clean || err != nil {
			t.Errorf("clean %v: the state says %v, %v", clean, ok, err)
		}
		must(t, m.end(false))
	}
}

// What Open and Recover would have refused is found when Pebble is opened. Until then, and
// after, nobody takes for the state what is not.
func TestResume_RefusesAnotherState(t *testing.T) {
	write := func(t *testing.T, n *node) {
		must(t, n.begin())
		for range 20 {
			c := newClient("b").set("two", "2")
			c.Sync = true
			n.commit(t, c)
		}
	}
	for _, c := range []struct {
		name  string
		state func(fs *vfs.MemFS) *vfs.MemFS // where Pebble's files come from
		says  string
	}{
		{"of another database", func(*vfs.MemFS) *vfs.MemFS { return noted(t) }, "Pebble's files are of database"},
		{"ahead of the log", func(fs *vfs.MemFS) *vfs.MemFS { return fs }, "but the log ends at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := noted(t, newClient("a").set("one", "1"))
			party := memFS(t)
			_, err := vfs.Clone(fs, party, "/db/party", "/db/party")
			must(t, err)
			state := c.state(fs)
			longer, err := join(small(state), eventlog.Options{})
			must(t, err)
			write(t, longer)
			must(t, longer.m.Flush(nil))
			must(t, longer.end(false))
			must(t, state.RemoveAll("/db/party"))
			_, err = vfs.Clone(party, state, "/db/party", "/db/party")
			must(t, err)
			n := resumed(t, state)
			write(t, n)
			n.m.Replay(t.Context())
			if n.m.Applied() != 0 {
				t.Errorf("applied %d of another state", n.m.Applied())
			}
			if d, err := n.m.Durable(); d != 0 || err != nil {
				t.Errorf("durable %d of another state, %v", d, err)
			}
			for range 2 {
				if err := n.m.CatchUp(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error is %v", err)
				}
			}
			if err := n.end(true); err == nil {
				t.Error("a clean end of a state that is not there")
			}
		})
	}
}

// What is damaged, or not of this log, is not used.
func TestResume_RefusesWhatItCannotUse(t *testing.T) {
	fs := noted(t, newClient("a").set("one", "1"))
	memory := readFile(t, fs, memoryPath)
	try := func(what string, memory []byte, fs *vfs.MemFS) {
		log, err := eventlog.Open(logDir, eventlog.Options{FS: fs})
		must(t, err)
		defer log.Abort()
		m, err := apply.Resume(dbDir, small(fs), nil, quiet, log, memory)
		if err == nil {
			t.Errorf("%s: it resumed", what)
			must(t, m.Close(false))
		}
	}
	try("nothing", nil, fs)
	for i := range memory {
		bad := append([]byte(nil), memory...)
		bad[i] ^= 1
		try("a bit", bad, fs)
		try("the beginning", memory[:i], fs)
	}
	try("another database", memory, noted(t, newClient("a").set("one", "1")))
	short := memFS(t)
	n, err := join(small(short), eventlog.Options{ID: eventlog.ID(memory[20:36])})
	must(t, err)
	must(t, n.end(false))
	try("a log that is shorter", memory, short)
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	return b
}
