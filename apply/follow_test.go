package apply_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

const copyDir = "/db/party/replicas/r/1"

// follower opens a checkpoint of n, which is made now, with the log behind it.
func follower(t testing.TB, n *node, dir string) (*apply.Machine, *eventlog.Reader) {
	t.Helper()
	checkpoint(t, n, dir)
	return openFollower(t, n, dir, small(n.fs))
}

func checkpoint(t testing.TB, n *node, dir string) {
	t.Helper()
	must(t, n.fs.MkdirAll(n.fs.PathDir(dir), 0o700))
	must(t, n.m.Checkpoint(dir))
}

func openFollower(t testing.TB, n *node, dir string, o *pebble.Options) (*apply.Machine, *eventlog.Reader) {
	t.Helper()
	f, err := apply.OpenFollower(dir, o, quiet)
	must(t, err)
	t.Cleanup(func() { _ = f.Close(false) })
	r, err := eventlog.OpenReader(n.fs, logDir, f.Applied()+1)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return f, r
}

func whole(t testing.TB, m *apply.Machine) []pair {
	t.Helper()
	return dump(t, m, func([]byte) bool { return true })
}

func TestMachine_FollowerHasTheLeadersState(t *testing.T) {
	cmds := script(t, 5)
	for _, at := range []int{0, 1, 700, len(cmds)} {
		t.Run(fmt.Sprint("checkpoint after ", at), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, uint64(at)))
			n := lead(t, small(memFS(t)))
			run(t, n, cmds[:at], func() int { return 1 + rng.IntN(5) })
			f, r := follower(t, n, copyDir)
			if f.Applied() > n.log.Last() {
				t.Fatalf("the checkpoint is at %d, the log at %d", f.Applied(), n.log.Last())
			}
			must(t, f.Join(n.log.ID()))
			must(t, f.Follow(r, n.log.Last()))
			same(t, "when it was made", whole(t, f), whole(t, n.m))
			view := f.View()
			then, before := n.log.Last(), userKeys(t, f)
			run(t, n, cmds[at:], func() int { return 1 + rng.IntN(5) })
			for f.Applied() < n.log.Last() {
				must(t, f.Follow(r, min(n.log.Last(), f.Applied()+1+rng.Uint64N(9))))
			}
			same(t, "later", whole(t, f), whole(t, n.m))
			if view.Seq() != then {
				t.Errorf("the view is at %d, was made at %d", view.Seq(), then)
			}
			for _, p := range before {
				if v, err := view.Get(nil, []byte(p.key)); err != nil || string(v) != p.value {
					t.Errorf("%q is %q in the view, %v; was %q", p.key, v, err, p.value)
				}
			}
			view.Close()
		})
	}
}

func TestMachine_FollowerRefusesWhatDoesNotFit(t *testing.T) {
	n := lead(t, small(memFS(t)))
	c := newClient("a")
	n.commit(t, c.set("k", "v"))
	must(t, n.m.Flush(nil))
	f, r := follower(t, n, copyDir)
	if err := f.Join(eventlog.ID{1}); !errors.Is(err, apply.ErrCorrupt) {
		t.Errorf("the log of another database: %v", err)
	}
	must(t, f.Join(n.log.ID()))
	n.commit(t, c.set("k", "w"))
	if err := f.Follow(r, n.log.Last()+1); !errors.Is(err, apply.ErrCorrupt) {
		t.Errorf("a log that ends early: %v", err)
	}
	must(t, f.Close(false))
	if _, err := apply.OpenFollower("/db/party/none", small(n.fs), quiet); err == nil {
		t.Error("opened nothing")
	}
	wrong := small(n.fs)
	wrong.Merger = &pebble.Merger{Name: "other", Merge: pebble.DefaultMerger.Merge}
	if _, err := apply.OpenFollower(copyDir, wrong, quiet); !errors.Is(err, apply.ErrIncompatible) {
		t.Errorf("another merger: %v", err)
	}
}

// What a user's Pebble keeps elsewhere is not a follower's.
func TestMachine_FollowerLeavesTheWALFolderAlone(t *testing.T) {
	fs := memFS(t)
	must(t, fs.MkdirAll("/wal", 0o700))
	o := small(fs)
	o.WALDir = "/wal"
	n := lead(t, o)
	n.commit(t, newClient("a").set("k", "v"))
	must(t, n.m.Flush(nil))
	must(t, fs.MkdirAll(fs.PathDir(copyDir), 0o700))
	must(t, n.m.Checkpoint(copyDir))
	f, err := apply.OpenFollower(copyDir, o, quiet)
	must(t, err)
	if v, err := f.Get(nil, []byte("k")); err != nil || string(v) != "v" {
		t.Errorf("k is %q, %v", v, err)
	}
	must(t, f.Close(false))
}

func inCopy(o op) bool { return strings.HasPrefix(o.path, copyDir) }

func TestMachine_CheckpointThatFailsHarmsNothing(t *testing.T) {
	table := func(o op) bool { return o.kind == "link" || (o.kind == "create" || o.kind == "write") && isTable(o) }
	for _, c := range []struct {
		name string
		is   func(op) bool
		err  error
	}{
		{"full disk, table", table, syscall.ENOSPC},
		{"full disk, manifest", func(o op) bool { return o.kind == "create" && isManifest(o) }, syscall.ENOSPC},
		{"full disk, manifest written", func(o op) bool { return o.kind == "write" && isManifest(o) }, syscall.ENOSPC},
		{"full disk, marker", func(o op) bool { return o.kind == "create" && strings.Contains(o.path, "marker") }, syscall.ENOSPC},
		{"no permission", func(o op) bool { return o.kind == "link" }, syscall.EPERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			hook := &hookFS{FS: memFS(t)}
			n := lead(t, small(hook))
			client := newClient("a")
			n.commit(t, client.set("k", "v"))
			must(t, n.m.Flush(nil))
			must(t, hook.MkdirAll(hook.PathDir(copyDir), 0o700))
			hook.hook(func(o op) error {
				if inCopy(o) && c.is(o) {
					return c.err
				}
				return nil
			}, nil)
			if err := n.m.Checkpoint(copyDir); !errors.Is(err, c.err) {
				t.Fatalf("Checkpoint: %v", err)
			}
			if _, err := hook.Stat(copyDir); err == nil {
				t.Error("something is left of it")
			}
			if err := n.m.Full(); err != nil {
				t.Errorf("commands are refused: %v", err)
			}
			n.commit(t, client.set("k", "w"))
			must(t, n.m.Flush(nil))
			hook.hook(nil, nil)
			f, r := follower(t, n, copyDir)
			must(t, f.Follow(r, n.log.Last()))
		})
	}
}

func TestMachine_CheckpointCopiesWhereItCannotLink(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	n.commit(t, newClient("a").set("k", "v"))
	must(t, n.m.Flush(nil))
	hook.hook(func(o op) error {
		if o.kind == "link" {
			return syscall.EXDEV
		}
		return nil
	}, nil)
	f, _ := follower(t, n, copyDir)
	if v, err := f.Get(nil, []byte("k")); err != nil || string(v) != "v" {
		t.Errorf("k is %q, %v", v, err)
	}
	hook.hook(nil, nil)
}

func TestMachine_StopEndsCheckpoints(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	n.commit(t, newClient("a").set("k", "v"))
	must(t, n.m.Flush(nil))
	must(t, hook.MkdirAll(hook.PathDir(copyDir), 0o700))
	stopped := errors.New("stopped")
	hook.hook(func(o op) error {
		if o.kind == "create" && inCopy(o) && strings.Contains(o.path, "OPTIONS") {
			n.m.Stop(stopped) // in the middle of it
		}
		return nil
	}, nil)
	if err := n.m.Checkpoint(copyDir); !errors.Is(err, apply.ErrStopped) {
		t.Fatalf("Checkpoint: %v", err)
	}
	hook.hook(nil, nil)
	must(t, n.end(true))
	if _, err := hook.Stat(copyDir); err == nil {
		t.Error("something is left of it")
	}
}
