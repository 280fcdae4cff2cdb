package apply

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// While Pebble opens, syncs are put off, but not that of a table, as a compaction may
// make one when opening takes long.
func TestGuardFS_SyncsTablesWhilePebbleOpens(t *testing.T) {
	for name, sync := range map[string]func(vfs.File) error{"Sync": vfs.File.Sync, "SyncData": vfs.File.SyncData} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			f, err := newGuardFS(fs).Create("000001.sst", "pebble-compaction")
			if err == nil {
				_, err = f.Write([]byte("table"))
			}
			if err == nil {
				err = sync(f)
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := fs.OpenDir("")
			if err == nil {
				err = d.Sync()
			}
			if err != nil {
				t.Fatal(err)
			}
			after, err := fs.CrashClone(vfs.CrashCloneCfg{}).Open("000001.sst")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(after); err != nil || string(b) != "table" {
				t.Errorf("the power cut left %q, %v", b, err)
			}
		})
	}
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// fullFS has no room for another file.
type fullFS struct{ vfs.FS }

func (fullFS) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, syscall.ENOSPC }
func (fullFS) Remove(string) error                                    { return syscall.ENOSPC }

// That the disk is full is known at once, not when what found it so is about to be done
// again: there may be room by then, and a write have succeeded, and the next be refused.
func TestGuardFS_SaysThatTheDiskIsFullBeforeItWaits(t *testing.T) {
	for name, c := range map[string]vfs.DiskWriteCategory{"000001.sst": flushCategory, "MANIFEST-000001": "pebble-manifest"} {
		t.Run(name, func(t *testing.T) {
			g := newGuardFS(fullFS{vfs.NewMem()})
			g.poll = time.Hour
			g.waits.Store(true)
			created := make(chan error, 1)
			go func() {
				_, err := g.Create(name, c)
				created <- err
			}()
			eventually(t, "it is known", func() bool { return g.full.Load() != nil })
			close(g.stop)
			if err := <-created; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Create: %v", err)
			}
		})
	}
}

// Some file systems need room to remove a file. Nobody tries that again, so it must not
// keep writes away.
func TestGuardFS_RemovesOrNot(t *testing.T) {
	g := newGuardFS(fullFS{vfs.NewMem()})
	g.poll = 0
	g.waits.Store(true)
	g.settling.opened()
	if err := g.settling.finish(false); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove("MANIFEST-000001"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Remove: %v", err)
	}
	if full := g.full.Load(); full != nil {
		t.Errorf("writes are refused: %v", *full)
	}
}
