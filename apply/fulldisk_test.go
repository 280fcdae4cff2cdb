package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// hold has what is done to files wait until release is called, and get err then.
func hold(t testing.TB, hook *hookFS, err error, is func(op) bool) (release func()) {
	held := make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	hook.hook(func(o op) error {
		if !is(o) {
			return nil
		}
		<-held
		return err
	}, nil)
	t.Cleanup(func() { hook.hook(nil, nil); release() })
	return release
}

func newTable(o op) bool { return o.kind == "create" && isTable(o) }

func compacted(o op) bool { return newTable(o) && o.category == "pebble-compaction" }

// standsStill waits until progress is what it was a while ago. Should the machine be so
// slow that it is not at its end then, a test finds less.
func standsStill(t testing.TB, progress func() uint64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for last, since := progress(), time.Now(); time.Since(since) < 500*time.Millisecond; {
		if now := progress(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatal("it goes on and on")
		}
		<-time.After(time.Millisecond)
	}
}

// ends waits for what a goroutine sends as it ends.
func ends(t testing.TB, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatal("still waiting: " + what)
		return nil
	}
}

// far opens what writeFarAhead has left, in a term: with 64 entries four times as much as
// a small Pebble has room for.
func far(t testing.TB, entries int) (*node, *hookFS) {
	t.Helper()
	hook := &hookFS{FS: memFS(t)}
	must(t, writeFarAhead(hook.FS, entries))
	n, err := open(small(hook), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	return n, hook
}

// fullAndBroken runs a test of what must end whatever is wrong with the disk.
func fullAndBroken(t *testing.T, test func(t *testing.T, err error)) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run(err.Error(), func(t *testing.T) { test(t, err) })
	}
}

// The end of a term does not wait for room on the disk, whether that was missing before
// or is found missing when there is much in memory already; nor for a disk that fails.
func TestMachine_ClosesBehindAFullDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		late bool
		err  error
	}{{"full before", false, syscall.ENOSPC}, {"full later", true, syscall.ENOSPC}, {"broken later", true, syscall.EIO}} {
		t.Run(c.name, func(t *testing.T) {
			n, hook := far(t, 64)
			full := hold(t, hook, c.err, newTable)
			m := n.m
			if !c.late {
				full()
				m.Replay(&countdown{t.Context(), 0})
				must(t, flushSoon(m))
				waitFor(t, "a flush that finds no room", m.Flushed(), func() bool { return m.Full() != nil })
			}
			closed := make(chan error, 1)
			go func() { closed <- n.end(true) }()
			if c.late {
				standsStill(t, m.Applied)
				full()
			}
			if err := ends(t, "Close", closed); !errors.Is(err, c.err) {
				t.Errorf("Close: %v", err)
			}
			n = lead(t, small(hook.FS))
			if v := n.get(t, "k"); v != "v" {
				t.Errorf("k is %q", v)
			}
		})
	}
}

// Reads need no room on the disk, and none that works: what one leader had in memory
// goes into the next one's.
func TestMachine_ReplaysOnAFullDisk(t *testing.T) {
	fullAndBroken(t, func(t *testing.T, err error) {
		n, hook := far(t, 640)
		hold(t, hook, err, newTable)()
		replayed := make(chan error, 1)
		go func() { n.m.Replay(t.Context()); replayed <- nil }()
		_ = ends(t, "Replay", replayed)
		must(t, n.m.CatchUp(t.Context()))
		if v := n.get(t, "k"); v != "v" {
			t.Errorf("k is %q", v)
		}
		must(t, n.end(false))
	})
}

// A replay that is long waits for flushes, and ends with the term. It is gone on with
// where it was.
func TestMachine_ReplayWaitsForRoom(t *testing.T) {
	n, hook := far(t, 64)
	release := hold(t, hook, nil, newTable)
	ctx, cancel := context.WithCancel(t.Context())
	replayed := make(chan error, 1)
	go func() { n.m.Replay(ctx); replayed <- nil }()
	standsStill(t, n.m.Applied)
	cancel()
	_ = ends(t, "Replay", replayed)
	if n.m.Applied() == n.log.Last() || !n.m.Behind() {
		t.Error("there was room for all of it")
	}
	release()
	must(t, n.m.CatchUp(t.Context()))
	if got := len(userKeys(t, n.m)); got != 65 {
		t.Errorf("%d keys", got)
	}
	must(t, n.end(true))
}

func TestMachine_FollowEndsOnAFullDisk(t *testing.T) {
	n := lead(t, small(memFS(t)))
	must(t, n.m.Flush(nil))
	c := newClient("a")
	fullAndBroken(t, func(t *testing.T, err error) {
		dir := copyDir + err.Error()
		checkpoint(t, n, dir)
		for i := range 64 {
			n.commit(t, c.set(fmt.Sprint(i), strings.Repeat("x", 1<<20)))
		}
		hook := &hookFS{FS: n.fs}
		full := hold(t, hook, err, newTable)
		o := small(hook)
		o.MemTableStopWritesThreshold = 2
		f, r := openFollower(t, n, dir, o)
		must(t, f.Join(n.log.ID()))
		followed := make(chan error, 1)
		go func() { followed <- f.Follow(r, n.log.Last()) }()
		standsStill(t, f.Applied)
		full()
		if got := ends(t, "Follow", followed); !errors.Is(got, err) {
			t.Errorf("Follow: %v", got)
		}
		must(t, errors.Join(r.Close(), f.Close(false)))
	})
}

// inWait tells whether somebody waits until no manifest is being written.
func inWait() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("versionSet).logLock"))
}

// manifestWaits has Pebble, which has been opened for a while, wait for room for its
// manifest, once full is called.
func manifestWaits(t testing.TB, hook *hookFS, flush func()) (full func()) {
	t.Helper()
	writing := make(chan struct{}, 1)
	full = hold(t, hook, syscall.ENOSPC, func(o op) bool {
		if o.kind != "write" || !isManifest(o) {
			return false
		}
		select {
		case writing <- struct{}{}:
		default:
		}
		return true
	})
	flush()
	<-writing
	return full
}

// A checkpoint waits until no manifest is written, and a manifest for room on the disk.
// The term ends all the same.
func TestMachine_StopEndsACheckpointBehindTheManifest(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	must(t, n.m.Flush(nil))
	must(t, hook.MkdirAll(hook.PathDir(copyDir), 0o700))
	n.commit(t, newClient("a").set("k", "v"))
	full := manifestWaits(t, hook, func() { must(t, flushSoon(n.m)) })
	made := make(chan error, 1)
	go func() { made <- n.m.Checkpoint(copyDir) }()
	waitFor(t, "the checkpoint waits", make(chan int), inWait)
	full()
	waitFor(t, "a manifest that finds no room", make(chan int), func() bool { return n.m.Full() != nil })
	n.m.Stop(errors.New("stopped"))
	if err := ends(t, "Checkpoint", made); !errors.Is(err, apply.ErrStopped) {
		t.Errorf("Checkpoint: %v", err)
	}
	must(t, hook.RemoveAll(hook.PathDir(copyDir))) // as who asked for it does
	hook.hook(nil, nil)
	must(t, n.end(true))
	if _, err := hook.Stat(hook.PathDir(copyDir)); err == nil {
		t.Error("something is left of it")
	}
}

// A checkpoint that Stop has left is over before Pebble is closed.
func TestMachine_CloseWaitsForCheckpoints(t *testing.T) {
	for range 30 {
		n := lead(t, small(memFS(t)))
		n.commit(t, newClient("a").set("k", "v"))
		must(t, n.m.Flush(nil))
		must(t, n.fs.MkdirAll(n.fs.PathDir(copyDir), 0o700))
		made := make(chan error, 1)
		go func() { made <- n.m.Checkpoint(copyDir) }()
		n.m.Stop(errors.New("stopped"))
		if err := ends(t, "Checkpoint", made); err != nil && !errors.Is(err, apply.ErrStopped) {
			t.Fatalf("Checkpoint: %v", err)
		}
		must(t, n.end(false))
	}
}

// Nor does who closes what a replica has shown wait for that replica's manifest.
func TestView_CloseWaitsForNoManifest(t *testing.T) {
	n := lead(t, small(memFS(t)))
	must(t, n.m.Flush(nil))
	checkpoint(t, n, copyDir)
	n.commit(t, newClient("a").set("k", "v"))
	hook := &hookFS{FS: n.fs}
	f, r := openFollower(t, n, copyDir, small(hook))
	must(t, f.Flush(nil))
	must(t, f.Join(n.log.ID()))
	view := f.View()
	must(t, f.Follow(r, n.log.Last()))
	full := manifestWaits(t, hook, func() { must(t, flushSoon(f)) })
	closed := make(chan error, 1)
	go func() { view.Close(); closed <- nil }()
	_ = ends(t, "Close", closed)
	waitFor(t, "Pebble waits", make(chan int), inWait)
	full()
	hook.hook(nil, nil)
	must(t, f.Flush(nil))
	must(t, errors.Join(r.Close(), f.Close(false)))
}

func TestRestorer_EndsOnAFullDisk(t *testing.T) {
	fullAndBroken(t, func(t *testing.T, err error) {
		hook := &hookFS{FS: memFS(t)}
		o := small(hook)
		o.MemTableStopWritesThreshold = 2
		r, rerr := apply.NewRestorer(dbDir, o, quiet, eventlog.ID{2}, apply.Lineage{Database: eventlog.ID{1}, Seq: 50}, time.Unix(7, 0))
		must(t, rerr)
		full := hold(t, hook, err, newTable)
		var set atomic.Uint64
		ended := make(chan error, 1)
		go func() {
			value := make([]byte, 4<<20)
			for {
				if err := r.Set(fmt.Appendf(nil, "%09d", set.Load()), value); err != nil {
					ended <- err
					return
				}
				set.Add(1)
			}
		}()
		standsStill(t, set.Load)
		full()
		if got := ends(t, "Set", ended); !errors.Is(got, err) {
			t.Errorf("Set: %v", got)
		}
		must(t, r.Close())
	})
}
