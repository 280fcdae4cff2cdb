package apply_test

import (
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// lockless is the file system of a leader that is to be killed: it leaves its lock
// to the next.
type lockless struct{ vfs.FS }

func (lockless) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// A leader is killed when it has written to its manifest that a compaction replaced
// some tables, and has not synced that. The next leader finds it there; a power cut brings
// back what names them.
func TestMachine_RemovesNothingBeforeTheManifestIsDurable(t *testing.T) {
	fs := memFS(t)
	hook := &hookFS{FS: lockless{fs}}
	o := small(hook)
	o.L0CompactionThreshold = 2
	compacted, release := make(chan struct{}), make(chan struct{})
	killed, err := join(o, eventlog.Options{})
	must(t, err)
	t.Cleanup(func() { close(release); _ = killed.end(false) })
	must(t, killed.begin())
	compacting := false // of the one goroutine that compacts
	hook.hook(func(o op) error {
		switch {
		case o.kind == "create" && isTable(o) && o.category == "pebble-compaction":
			compacting = true
		case o.kind == "sync" && isManifest(o) && compacting:
			compacting = false
			close(compacted)
			<-release
		}
		return nil
	}, nil)
	c := newClient("a")
	for _, k := range []string{"k", "l", "m"} {
		killed.commit(t, c.set("a", k), c.set(k, "v"), c.set("z", k))
		must(t, killed.m.Flush(nil))
	}
	select {
	case <-compacted: // it is in the manifest
	case <-time.After(patience):
		t.Fatal("waited in vain for a compaction")
	}

	var cuts []*vfs.MemFS
	rewritten := false                                                                                   // what a failed sync has left in the kernel's cache, no other sync writes
	old, err := fs.Create(dbDir+"/marker.manifest.000000.MANIFEST-000000", vfs.WriteCategoryUnspecified) // is removed first
	must(t, err)
	must(t, old.Close())
	look := make(chan struct{})
	taken := &hookFS{FS: fs}
	taken.hook(func(o op) error {
		if o.kind == "write" && isManifest(o) {
			<-look
			info, err := fs.Stat(o.path)
			must(t, err)
			rewritten = int64(o.size) == info.Size()
		}
		if o.kind == "remove" && !rewritten {
			t.Errorf("%s is removed", o.path)
		}
		return nil
	}, func(o op) {
		if o.kind == "remove" { // which may be on the disk at once
			must(t, syncDir(fs, dbDir))
			cuts = append(cuts, fs.CrashClone(vfs.CrashCloneCfg{}))
		}
	})
	n := lead(t, small(taken))
	if seq, err := n.m.Durable(); seq != 0 || err != nil {
		t.Errorf("durable up to %d, %v", seq, err)
	}
	close(look)
	must(t, n.end(false))
	if len(cuts) < 3 {
		t.Errorf("%d files were removed: not all the tables that were replaced", len(cuts))
	}
	for _, fs := range append(cuts, fs) {
		again := lead(t, small(fs))
		for _, k := range []string{"k", "l", "m"} {
			if v := again.get(t, k); v != "v" {
				t.Errorf("%s is %q", k, v)
			}
		}
		must(t, again.end(true))
	}
}

// Pebble creates a file of its own log, which the next Pebble would replay, and
// write a manifest for, before it is open.
func TestGuardFS_KeepsPebblesLogAway(t *testing.T) {
	fs := memFS(t)
	hook := &hookFS{FS: fs}
	ofPebble := func(o op) bool { return strings.HasSuffix(o.path, ".log") && path.Dir(o.path) == dbDir }
	hook.hook(func(o op) error {
		if ofPebble(o) && o.kind != "create" && o.kind != "remove" {
			t.Errorf("%s of %s", o.kind, o.path)
		}
		return nil
	}, nil)
	logs := func() (n int) {
		names, err := fs.List(dbDir)
		must(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				n++
			}
		}
		return n
	}
	logFile, err := fs.Create(dbDir+"/app.log", vfs.WriteCategoryUnspecified) // somebody else's
	must(t, err)
	must(t, logFile.Close())
	c := newClient("a")
	for range 3 {
		n := lead(t, small(hook))
		n.commit(t, c.set("k", "v"))
		must(t, n.m.Flush(nil))
		must(t, n.end(true))
		if n := logs(); n != 2 {
			t.Fatalf("%d files of a log after a clean end", n)
		}
	}
	for range 3 { // leaders that die before they have settled
		hook.hook(func(o op) error {
			if _, err := fs.Stat(o.path); err != nil && isManifest(o) {
				t.Errorf("%s of %s", o.kind, o.path)
			}
			return nil
		}, nil)
		n, err := open(small(hook), eventlog.Options{})
		must(t, err)
		hook.hook(nil, nil)
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		hook = &hookFS{FS: fs}
		must(t, n.end(false))
		if n := logs(); n < 2 || n > 3 { // the new one is made before the old one is removed
			t.Fatalf("%d files of a log", n)
		}
	}
	if v := lead(t, small(hook)).get(t, "k"); v != "v" {
		t.Errorf("k is %q", v)
	}
}

// What Pebble's own Checkpoint copies of a manifest is what it has written itself.
func TestMachine_CheckpointBeforeTheFirstFlush(t *testing.T) {
	fs := memFS(t)
	n := lead(t, small(fs))
	n.commit(t, newClient("a").set("k", "v"))
	must(t, n.end(true))
	n, err := join(small(fs), eventlog.Options{}) // there is nothing to flush
	must(t, err)
	t.Cleanup(func() { _ = n.end(false) })
	f, _ := follower(t, n, copyDir)
	if v, err := f.Get(nil, []byte("k")); err != nil || string(v) != "v" {
		t.Errorf("k is %q, %v", v, err)
	}
}
