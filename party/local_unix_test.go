//go:build unix

package party_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

// Reads go on while nobody can be asked.
func TestLocalReads_GoOnWhileTheLeaderIsStopped(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, locals())
	readsLocally(t, db)
	set(t, db, "k", "1")
	leader.stop()
	expect(t, db, "k", "1")
	if got := scan(t, db, &party.IterOptions{Strict: true}); len(got) != 1 || got[0] != "k=1" {
		t.Errorf("iterator: %q", got)
	}
	values, err := db.GetMany(within(t), [][]byte{[]byte("k"), []byte("none")})
	if err != nil || string(values[0]) != "1" || values[1] != nil {
		t.Errorf("GetMany: %q, %v", values, err)
	}
	if has, err := db.Has(within(t), []byte("none")); has || err != nil {
		t.Errorf("Has: %t, %v", has, err)
	}
	s, err := db.Status(within(t))
	if err != nil || s.Responding || !s.LocalReads {
		t.Errorf("status: %+v, %v", s, err)
	}
	ctx, cancel := context.WithTimeout(within(t), short)
	defer cancel()
	if err := db.Set(ctx, []byte("k"), []byte("2"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("set: %v", err)
	}
	leader.cont()
	set(t, db, "k", "3")
	expect(t, db, "k", "3")
}

// A process that was stopped for long finds what it missed, with a leader that it
// has not met.
func TestLocalReads_CatchUpAfterAStop(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	reader := start(t, config{Dir: dir, Local: true})
	until(t, "the reader has a replica", func() bool { return reader.do(request{Op: "status"}).Status.LocalReads })
	db := open(t, dir, quietly())
	set(t, db, "k", "1")
	reader.do(request{Op: "get", Key: []byte("k")})
	reader.stop()
	answer := reader.send(request{Op: "get", Key: []byte("k")})
	leader.kill()
	for i := range 3000 {
		must(t, db.Set(within(t), worldKey(i), pattern(100), pebble.NoSync))
	}
	set(t, db, "k", "2")
	reader.cont()
	if a := receive(t, "the answer of the reader", answer); a.Err != "" || string(a.Value) != "2" {
		t.Errorf("it sees %q, %s", a.Value, a.Err)
	}
}

// A disk that failed a sync may lose what was written without one although the
// machine goes on. What is here of it is the log as it was a while ago. A replica
// that has more must not be read again.
func TestLocalReads_FindThatTheLogLostSomething(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	reader := start(t, config{Dir: dir, Local: true})
	until(t, "the reader has a replica", func() bool { return reader.do(request{Op: "status"}).Status.LocalReads })
	leader.do(request{Op: "set", Key: []byte("k"), Value: []byte("1")})
	logs, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
	must(t, err)
	if len(logs) != 1 {
		t.Fatalf("log segments: %q", logs)
	}
	was, err := os.ReadFile(logs[0])
	must(t, err)
	leader.do(request{Op: "sets", Key: []byte("lost"), N: 100, NoSync: true})
	if a := reader.do(request{Op: "get", Key: []byte("lost000099")}); a.Value == nil {
		t.Fatal("the reader does not see what was acknowledged")
	}
	reader.stop()
	leader.kill()
	must(t, os.WriteFile(logs[0], was, 0o600))
	word, err := eventlog.AlterCommit(filepath.Join(dir, "party", "commit"))
	must(t, err)
	word.SetDurable(0) // as if it had not been synced in between
	must(t, word.Close())
	db := open(t, dir, quietly())
	leads(t, db)
	set(t, db, "k", "2")
	reader.cont()
	if a := reader.do(request{Op: "get", Key: []byte("k")}); string(a.Value) != "2" {
		t.Errorf("the reader sees %q", a.Value)
	}
	if a := reader.call(request{Op: "get", Key: []byte("lost000099")}); !slices.Contains(a.Is, "not found") {
		t.Errorf("the reader sees what was lost: %q, %s", a.Value, a.Err)
	}
}
