package apply_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// fill writes until Room returns an error, of a context that ends after the given time if
// of nothing else.
func fill(t testing.TB, n *node, c *client, limit time.Duration) (written int, err error) {
	t.Helper()
	for ; written < 1000; written++ {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err = n.m.Room(ctx)
		cancel()
		if err != nil {
			return written, err
		}
		n.commit(t, c.set("k", strings.Repeat("x", 8<<10)))
	}
	t.Fatal("there is room for everything")
	return 0, nil
}

// Who is about to write waits at the limits of the user's Pebble, but not in Pebble.
func TestMachine_WaitsForRoom(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit func(*pebble.Options)
		held  func(op) bool
		least int // of writes for which there is room
	}{
		{"memtables", func(o *pebble.Options) { o.MemTableStopWritesThreshold = 4 }, newTable, 4 * 3},
		{"level 0", func(o *pebble.Options) {
			o.L0CompactionThreshold, o.L0StopWritesThreshold, o.MemTableStopWritesThreshold = 2, 4, 1000
		}, compacted, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			hook := &hookFS{FS: memFS(t)}
			o := small(hook)
			c.limit(o)
			var began, ended atomic.Int64
			o.EventListener = &pebble.EventListener{
				WriteStallBegin: func(pebble.WriteStallBeginInfo) { began.Add(1) },
				WriteStallEnd:   func() { ended.Add(1) },
			}
			n := lead(t, o)
			release := hold(t, hook, nil, c.held)
			client := newClient("a")
			if written, err := fill(t, n, client, time.Second); written < c.least || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d writes: %v", written, err)
			}
			for range 8 { // it is not Pebble who waits
				n.commit(t, client.set("k", strings.Repeat("x", 8<<10)))
			}
			n.commit(t, client.set("k", "v"))
			if v := n.get(t, "k"); v != "v" {
				t.Errorf("k is %q", v)
			}
			release()
			must(t, n.m.Room(t.Context()))
			if began.Load() == 0 || began.Load() != ended.Load() {
				t.Errorf("%d stalls began, %d ended", began.Load(), ended.Load())
			}
			must(t, n.end(true))
		})
	}
}

// Pebble says how full it is only when its manifest is written. On a full disk it waits
// with that for room, but nobody waits for Pebble.
func TestMachine_RoomIsRefusedWhileTheManifestWaits(t *testing.T) {
	hook := &hookFS{FS: memFS(t)}
	n := lead(t, small(hook))
	must(t, n.m.Flush(nil)) // the manifest that was made while Pebble opened is in force
	full := hold(t, hook, syscall.ENOSPC, func(o op) bool { return o.kind == "write" && isManifest(o) })
	must(t, flushSoon(n.m))
	if _, err := fill(t, n, newClient("a"), time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() { refused <- n.m.Room(t.Context()) }()
	full()
	if err := ends(t, "Room", refused); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Room: %v", err)
	}
	hook.hook(nil, nil)
	waitFor(t, "room again", n.m.Flushed(), func() bool { return n.m.Full() == nil })
	must(t, n.m.Room(t.Context()))
	must(t, n.end(true))
}

// Tables that cannot be compacted for want of space pile up, until writes are refused.
func TestMachine_RoomIsRefusedWhileCompactionsFindNone(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		t.Run(full.Error(), func(t *testing.T) {
			hook := &hookFS{FS: memFS(t)}
			o := small(hook)
			o.L0CompactionThreshold, o.L0StopWritesThreshold = 2, 4
			n := lead(t, o)
			hold(t, hook, full, compacted)()
			client := newClient("a")
			if written, err := fill(t, n, client, patience); written < 4 || !errors.Is(err, full) {
				t.Fatalf("after %d writes: %v", written, err)
			}
			if n.m.Full() != nil {
				t.Errorf("flushes find none either: %v", n.m.Full())
			}
			n.commit(t, client.set("k", "v"))
			if v := n.get(t, "k"); v != "v" {
				t.Errorf("k is %q", v)
			}
			hook.hook(nil, nil)
			waitFor(t, "room again", make(chan int), func() bool { return n.m.Room(t.Context()) == nil })
			release := hold(t, hook, nil, compacted)
			if written, err := fill(t, n, client, time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d writes, with a compaction that is only slow: %v", written, err)
			}
			release()
			must(t, n.end(true))
		})
	}
}
