package apply_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

func isTable(o op) bool    { return strings.HasSuffix(o.path, ".sst") }
func isManifest(o op) bool { return strings.Contains(o.path, "MANIFEST-") }

func TestGuardFS_SyncsLogBeforeTables(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	var tables, early atomic.Int64
	hook.hook(func(o op) error {
		if o.kind == "create" && isTable(o) {
			tables.Add(1)
			if n.log.Durable() < n.log.Last() { // nobody writes meanwhile
				early.Add(1)
			}
		}
		return nil
	}, nil)
	c := newClient("a")
	for range 3 {
		n.commit(t, c.set("k", "v")) // the first one syncs the reservation
		n.commit(t, c.set("k", "w"))
		if n.log.Durable() == n.log.Last() {
			t.Fatal("the log was synced without need, this test shows nothing")
		}
		must(t, n.m.Flush(nil))
	}
	if tables.Load() == 0 || early.Load() != 0 {
		t.Fatalf("%d tables, %d of them before their log was durable", tables.Load(), early.Load())
	}
	hook.hook(nil, nil)
}

// A Pebble whose new manifest cannot be brought into force is closed, and that comes
// to an end, though an operation that nobody waits for any more may be in it.
func TestMachine_ClosesWhenItsManifestCannotBeSettled(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	must(t, lead(t, small(hook)).end(false))
	for i := range 30 {
		n := lead(t, small(hook))
		hook.hook(func(o op) error {
			if o.kind == "sync" && strings.HasSuffix(o.path, ".dbtmp") {
				return errors.New("injected")
			}
			return nil
		}, nil)
		n.commit(t, newClient(fmt.Sprint(i)).set("k", "v"))
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() { _ = n.m.Flush(nil) })
		}
		<-n.m.Failed()
		calls.Wait()
		closed := make(chan error, 1)
		go func() { closed <- n.m.Close(false) }()
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("Close does not return")
		}
		hook.hook(nil, nil)
		n.m = nil
		_ = n.end(false)
	}
}

// Whoever counts what is to be flushed has to know of a flush that did not begin.
func TestMachine_FlushSoonTellsIfItBegan(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	must(t, n.m.Flush(nil))
	held, entered := make(chan struct{}), make(chan struct{}, 100)
	hook.hook(func(o op) error {
		if o.kind == "create" && isTable(o) {
			entered <- struct{}{}
			<-held
		}
		return nil
	}, nil)
	c := newClient("a")
	n.commit(t, c.set("k", "v"))
	begun, err := n.m.FlushSoon()
	must(t, err)
	if !begun {
		t.Fatal("no flush began")
	}
	<-entered
	n.commit(t, c.set("k", "w")) // not in that flush
	if begun, err = n.m.FlushSoon(); begun || err != nil {
		t.Fatalf("a second flush began, or %v", err)
	}
	close(held)
	waitFor(t, "all is durable", n.m.Flushed(), func() bool {
		must(t, flushSoon(n.m))
		d, err := n.m.Durable()
		return err == nil && d == n.m.Applied()
	})
	hook.hook(nil, nil)
}

func TestGuardFS_PublishesNoTableWithoutLog(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	c := newClient("a")
	n.commit(t, c.set("k", "v"))
	must(t, n.m.Flush(nil))
	before, err := n.m.Durable()
	must(t, err)
	n.commit(t, c.set("k", "w"))
	cause := errors.New("injected")
	var tables atomic.Int64
	hook.hook(func(o op) error {
		if o.kind == "sync" && strings.HasPrefix(o.path, logDir) {
			return cause
		}
		if o.kind == "create" && isTable(o) {
			tables.Add(1)
		}
		return nil
	}, nil)
	if err := n.m.Flush(nil); !errors.Is(err, eventlog.ErrFailed) {
		t.Fatalf("Flush: %v, want %v", err, eventlog.ErrFailed)
	}
	if after, err := n.m.Durable(); err != nil || after != before || tables.Load() != 0 {
		t.Fatalf("durable %d, was %d; %d tables; %v", after, before, tables.Load(), err)
	}
	must(t, n.end(false))
	hook.hook(nil, nil)
	if v := lead(t, small(hook)).get(t, "k"); v != "w" {
		t.Fatalf("k is %q", v)
	}
}

func TestGuardFS_FullDiskFailsNoFlushForGood(t *testing.T) {
	for _, c := range []struct {
		kind string
		err  error
	}{{"create", syscall.ENOSPC}, {"write", syscall.ENOSPC}, {"sync", syscall.ENOSPC}, {"write", syscall.EDQUOT}} {
		t.Run(c.kind+", "+c.err.Error(), func(t *testing.T) {
			hook := &hookFS{FS: memFS(t)}
			n := lead(t, small(hook))
			n.commit(t, newClient("a").set("k", "v"))
			hook.hook(func(o op) error {
				if o.kind == c.kind && isTable(o) {
					return c.err
				}
				return nil
			}, nil)
			if err := n.m.Flush(nil); !errors.Is(err, c.err) {
				t.Fatalf("Flush: %v", err)
			}
			if err := n.m.Full(); !errors.Is(err, c.err) {
				t.Fatalf("Full: %v", err)
			}
			if v := n.get(t, "k"); v != "v" {
				t.Fatalf("k is %q while the disk is full", v)
			}
			hook.hook(nil, nil)
			waitFor(t, "a flush when there is room", n.m.Flushed(), func() bool { return n.m.Full() == nil })
			must(t, n.end(true))
			if v := lead(t, small(hook)).get(t, "k"); v != "v" {
				t.Fatalf("k is %q", v)
			}
		})
	}
}

// Pebble does not repeat a failed compaction soon, and nothing would ever say
// that there is room again.
func TestGuardFS_FullDiskInCompactionRefusesNoCommands(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	o := small(hook)
	o.L0CompactionThreshold = 2
	var failed atomic.Int64 // reported by Pebble, so after guardFS saw it
	o.EventListener = &pebble.EventListener{BackgroundError: func(error) { failed.Add(1) }}
	n := lead(t, o)
	hook.hook(func(o op) error {
		if o.kind == "create" && isTable(o) && o.category == "pebble-compaction" {
			return syscall.ENOSPC
		}
		return nil
	}, nil)
	c := newClient("a")
	for range 4 { // enough to compact, too few for Pebble to stop writes
		n.commit(t, c.set("a", "v"), c.set("k", "v"), c.set("z", "v"))
		waitFor(t, "a flush", n.m.Flushed(), func() bool {
			if d, err := n.m.Durable(); err == nil && d == n.m.Applied() {
				return true
			}
			must(t, flushSoon(n.m)) // does nothing while the one before has not quite ended
			return false
		})
	}
	waitFor(t, "a compaction", n.m.Flushed(), func() bool { return failed.Load() > 0 })
	if err := n.m.Full(); err != nil {
		t.Fatal(err)
	}
	hook.hook(nil, nil)
}

func TestGuardFS_WaitsForRoomForTheManifest(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	must(t, n.m.Flush(nil)) // the manifest that was made while Pebble opened is in force
	n.commit(t, newClient("a").set("k", "v"))
	var tries atomic.Int64
	hook.hook(func(o op) error {
		if (o.kind == "write" || o.kind == "sync") && isManifest(o) {
			tries.Add(1)
			return syscall.ENOSPC
		}
		return nil
	}, nil)
	must(t, flushSoon(n.m))
	waitFor(t, "tries to write the manifest", make(chan int), func() bool { return tries.Load() > 1 })
	if err := n.m.Full(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Full: %v", err)
	}
	hook.hook(nil, nil)
	waitFor(t, "the flush when there is room", n.m.Flushed(), func() bool {
		d, err := n.m.Durable()
		return err == nil && d == n.m.Applied() && n.m.Full() == nil
	})
	must(t, n.end(true))
}

func TestMachine_OpenFailsOnFullDisk(t *testing.T) {
	fs := memFS(t)
	hook := &hookFS{FS: fs, before: func(o op) error {
		if o.kind == "create" && isManifest(o) {
			return syscall.ENOSPC
		}
		return nil
	}}
	if _, err := join(small(hook), eventlog.Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open: %v", err)
	}
}

var roles = map[string]func() error{
	"break":        func() error { return roleBreak(false) },
	"break clean":  func() error { return roleBreak(true) },
	"break behind": roleBehind,
	"open":         roleOpen,
	"settle":       roleSettle,
	"move":         roleMove,
}

func TestStore_GivesUpABrokenPebble(t *testing.T) {
	for role := range roles {
		t.Run(role, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), roleEnv+"="+role)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "role done") {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func plainFS() (*vfs.MemFS, error) {
	fs := vfs.NewCrashableMem()
	err := fs.MkdirAll("/db/party", 0o700)
	return fs, errors.Join(err, syncDir(fs, "/"), syncDir(fs, "/db"))
}

var errHard = errors.New("injected hard error")

// breakManifest has the manifest fail for good.
func breakManifest(o op) error {
	if (o.kind == "write" || o.kind == "sync") && isManifest(o) {
		return errHard
	}
	return nil
}

// roleBreak has the manifest fail for good under a leader.
func roleBreak(clean bool) error {
	fs, err := plainFS()
	if err != nil {
		return err
	}
	hook := &hookFS{FS: fs}
	return roleFlush(small(hook), hook, breakManifest, clean)
}

// roleFlush has a flush fail for good under a leader.
func roleFlush(o *pebble.Options, hook *hookFS, fail func(op) error, clean bool) error {
	n, err := join(o, eventlog.Options{})
	if err != nil {
		return err
	}
	if err := n.begin(); err != nil {
		return err
	}
	if err := n.m.Flush(nil); err != nil { // the manifest that was made while Pebble opened is in force
		return err
	}
	c := newClient("a")
	cmd := c.set("k", "v")
	cmd.Sync = true
	n.group(cmd)
	if err := n.finish(); err != nil {
		return err
	}
	hook.hook(fail, nil)
	// It may break before it has told that the flush began.
	if err := flushSoon(n.m); err != nil && !errors.Is(err, errHard) {
		return err
	}
	<-n.m.Failed()
	if err := n.m.Err(); !errors.Is(err, errHard) {
		return fmt.Errorf("Err: %w", err)
	}
	return giveUp(n, hook, clean)
}

// roleMove has the folder fail to be synced behind the marker of a new manifest.
func roleMove() error {
	fs, err := plainFS()
	if err != nil {
		return err
	}
	hook := &hookFS{FS: fs}
	o := small(hook)
	o.MaxManifestFileSize = 1 // a new one for each flush
	var moved atomic.Bool
	return roleFlush(o, hook, func(o op) error {
		switch {
		case o.kind == "create" && isManifest(o) && strings.Contains(o.path, "marker."):
			moved.Store(true)
		case o.kind == "sync" && o.path == dbDir && moved.Load():
			return errHard
		}
		return nil
	}, true)
}

// giveUp closes a broken Pebble, and opens another one that has k=v.
func giveUp(n *node, hook *hookFS, clean bool) error {
	if err := n.m.Close(clean); !errors.Is(err, errHard) {
		return fmt.Errorf("Close: %w", err)
	}
	if !n.m.Abandoned() {
		return errors.New("not abandoned")
	}
	var behind atomic.Int64
	hook.hook(func(o op) error { behind.Add(1); return nil }, nil)
	if err := errors.Join(n.log.Abort(), n.lock.Close(), n.lock.Close()); err != nil {
		return err
	}
	if k := behind.Load(); k != 0 {
		return fmt.Errorf("%d changes behind the fence", k)
	}
	hook.hook(nil, nil)
	again, err := join(small(hook.FS), eventlog.Options{})
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if v, err := again.m.Get(nil, []byte("k")); err != nil || string(v) != "v" {
		return fmt.Errorf("k is %q, %w", v, err)
	}
	return again.end(true)
}

// roleBehind has the manifest fail for good under a leader whose Pebble lacks more of
// the log than goes into its memory. So a clean end cannot have it all, and must not
// wait in Pebble until it has.
func roleBehind() error {
	fs, err := plainFS()
	if err != nil {
		return err
	}
	if err := writeFarAhead(fs, 64); err != nil {
		return err
	}
	hook := &hookFS{FS: fs}
	n, err := open(small(hook), eventlog.Options{})
	if err != nil {
		return err
	}
	if err := n.begin(); err != nil {
		return err
	}
	n.m.Replay(&countdown{context.Background(), 0})
	if err := n.m.Flush(nil); err != nil { // the manifest that was made while Pebble opened is in force
		return err
	}
	hook.hook(breakManifest, nil)
	n.m.Replay(&countdown{context.Background(), 0}) // a batch that is flushed at once
	<-n.m.Failed()
	if !n.m.Behind() {
		return errors.New("nothing is left to replay")
	}
	return giveUp(n, hook, true)
}

// roleOpen has the manifest fail for good while Pebble is opened.
func roleOpen() error {
	fs, err := plainFS()
	if err != nil {
		return err
	}
	hook := &hookFS{FS: fs, before: func(o op) error {
		if o.kind == "write" && isManifest(o) {
			return errHard
		}
		return nil
	}}
	lock, err := pebble.LockDirectory(dbDir, hook)
	if err != nil {
		return err
	}
	if _, err := apply.Open(dbDir, small(hook), lock, quiet); !errors.Is(err, errHard) {
		return fmt.Errorf("Open: %w", err)
	}
	if err := lock.Close(); err != nil {
		return err
	}
	n, err := join(small(fs), eventlog.Options{}) // the lock is free
	if err != nil {
		return err
	}
	return n.end(true)
}

// roleSettle has the manifest of the opening, that of a plain Pebble which was killed,
// fail to be synced, which happens after Open has returned. The manifest before stays in
// force.
func roleSettle() error {
	fs, err := plainFS()
	if err != nil {
		return err
	}
	db, err := pebble.Open(dbDir, small(fs))
	if err != nil {
		return err
	}
	if err := db.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
		return err
	}
	fs = fs.CrashClone(vfs.CrashCloneCfg{})
	if err := db.Close(); err != nil {
		return err
	}
	hook := &hookFS{FS: fs}
	hook.hook(func(o op) error {
		if o.kind == "sync" && isManifest(o) {
			return errHard
		}
		return nil
	}, nil)
	n, err := join(small(hook), eventlog.Options{})
	if err != nil {
		return err
	}
	<-n.m.Failed()
	if err := n.m.Err(); !errors.Is(err, errHard) {
		return fmt.Errorf("Err: %w", err)
	}
	if err := n.m.Close(false); err != nil && !errors.Is(err, errHard) {
		return fmt.Errorf("Close: %w", err)
	}
	if err := errors.Join(n.log.Abort(), n.lock.Close()); err != nil {
		return err
	}
	if n.m.Abandoned() {
		if err := n.lock.Close(); err != nil {
			return err
		}
	}
	again, err := join(small(fs.CrashClone(vfs.CrashCloneCfg{})), eventlog.Options{})
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if v, err := again.m.Get(nil, []byte("k")); err != nil || string(v) != "v" {
		return fmt.Errorf("k is %q, %w", v, err)
	}
	return again.end(true)
}
