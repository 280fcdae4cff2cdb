//go:build unix

package chaos_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// rig is a database folder with a disk below it.
type rig struct {
	t       *testing.T
	db, dir string
	chaos.Disk
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, db: filepath.Join(dir, "db"), dir: filepath.Join(dir, "platter")}
	r.must(os.MkdirAll(filepath.Join(r.db, "party", "log"), 0o700))
	r.restart()
	r.must(r.Hold())
	return r
}

// restart is another process on the same disk.
func (r *rig) restart() { r.Disk = chaos.NewDisk(r.db, r.dir) }

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.db, name) }

func (r *rig) create(name string) vfs.File {
	r.t.Helper()
	f, err := r.OpenReadWrite(r.path(name), vfs.WriteCategoryUnspecified)
	r.must(err)
	r.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (r *rig) write(f vfs.File, at int64, text string) {
	r.t.Helper()
	_, err := f.WriteAt([]byte(text), at)
	r.must(err)
}

func (r *rig) syncNames(folder string) {
	r.t.Helper()
	d, err := r.OpenDir(r.path(folder))
	r.must(err)
	r.must(errors.Join(d.Sync(), d.Close()))
}

// has returns what a file holds; "absent" if there is none.
func (r *rig) has(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return "absent"
	}
	r.must(err)
	return string(b)
}

// after cuts the power many times, each time of a state that do makes anew, and
// returns what was there then, and how often.
func after(t *testing.T, file string, do func(r *rig)) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(20) {
		r := newRig(t)
		do(r)
		r.must(r.Cut(seed))
		seen[r.has(file)]++
	}
	return seen
}

func TestPlatter_WhatWasSyncedStays(t *testing.T) {
	seen := after(t, "f", func(r *rig) {
		f := r.create("f")
		r.write(f, 0, "one")
		r.must(f.SyncData())
		r.syncNames("")
		r.write(f, 3, "two")
	})
	for text := range seen {
		if !bytes.HasPrefix([]byte(text), []byte("one")) || len(text) > 6 {
			t.Errorf("after a power cut: %q", text)
		}
	}
	if seen["one"] == 0 || seen["onetwo"] == 0 {
		t.Errorf("what was not synced is to be lost at times and at times not: %v", seen)
	}
}

func TestPlatter_NamesNeedASyncOfTheFolder(t *testing.T) {
	seen := after(t, "new", func(r *rig) {
		f := r.create("old")
		r.write(f, 0, "text")
		r.must(f.Sync())
		r.syncNames("")
		r.must(r.Rename(r.path("old"), r.path("new")))
	})
	if seen["text"] == 0 || seen["absent"] == 0 || len(seen) != 2 {
		t.Errorf("of a rename: %v", seen)
	}
	seen = after(t, "f", func(r *rig) {
		f := r.create("f")
		r.write(f, 0, "text")
		r.must(f.Sync())
		r.syncNames("")
		r.must(r.Remove(r.path("f")))
	})
	if seen["text"] == 0 || seen["absent"] == 0 || len(seen) != 2 {
		t.Errorf("of a removal: %v", seen)
	}
	seen = after(t, "f", func(r *rig) {
		f := r.create("f")
		r.write(f, 0, "text")
		r.must(f.Sync())
		r.must(r.Remove(r.path("f")))
		r.write(r.create("f"), 0, "again")
		r.syncNames("")
		r.must(r.Remove(r.path("f")))
		r.syncNames("")
	})
	if seen["absent"] != 20 {
		t.Errorf("of a removal that was synced: %v", seen)
	}
}

// What a process wrote and did not sync, the next one's sync brings to the disk.
func TestPlatter_OutlivesProcesses(t *testing.T) {
	seen := after(t, "party/log/f", func(r *rig) {
		f := r.create("party/log/f")
		r.write(f, 0, "one")
		r.syncNames("party/log")
		r.restart()
		f = r.create("party/log/f")
		r.write(f, 3, "two")
		r.must(f.SyncData())
		r.restart()
		r.write(r.create("party/log/f"), 0, "1")
	})
	if seen["onetwo"] == 0 || seen["1netwo"] == 0 || len(seen) != 2 {
		t.Errorf("after a power cut: %v", seen)
	}
}

// Who syncs the folder may be the one to give a new file its other name, and be slow
// to go on: who creates the file may have synced it by then.
func TestPlatter_SyncsOfFolderAndFileMeet(t *testing.T) {
	seen := after(t, "f", func(r *rig) {
		f := r.create("f")
		r.must(os.RemoveAll(filepath.Join(r.dir, "pin"))) // as it was a moment ago
		r.must(os.Mkdir(filepath.Join(r.dir, "pin"), 0o700))
		r.write(f, 0, "text")
		r.must(f.Sync())
		r.syncNames("")
	})
	if seen["text"] != 20 {
		t.Errorf("after a power cut: %v", seen)
	}
}

// After a sync that failed no other brings the bytes to the disk, in whatever
// process, unless they are written again.
func TestPlatter_FailedSyncLosesPages(t *testing.T) {
	fail := func(r *rig) {
		f := r.create("f")
		r.write(f, 0, "....")
		r.must(f.Sync())
		r.syncNames("")
		r.write(f, 0, "text")
		r.FailSyncs()
		if err := f.SyncData(); !errors.Is(err, chaos.ErrInjected) || !errors.Is(err, syscall.EIO) {
			t.Errorf("a sync that should fail: %v", err)
		}
		r.Heal()
		r.must(f.Sync())
		r.restart()
		r.must(r.create("f").Sync())
	}
	if seen := after(t, "f", fail); seen["...."] != 20 {
		t.Errorf("after a power cut: %v", seen)
	}
	seen := after(t, "f", func(r *rig) {
		fail(r)
		f := r.create("f")
		r.write(f, 0, "te")
		r.must(f.Sync())
	})
	if seen["te.."] != 20 {
		t.Errorf("after half of it was written again: %v", seen)
	}
}

// A platter that is used for long holds what is there, and no more.
func TestPlatter_Model(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := newRig(t)
			rng := rand.New(rand.NewPCG(seed, 3))
			sure := map[string]string{} // synced, bytes and name, and not touched since
			for step := range 150 {
				name := fmt.Sprint("f", rng.IntN(5))
				switch rng.IntN(8) {
				case 0:
					if r.has(name) != "absent" {
						r.must(r.Remove(r.path(name)))
						delete(sure, name)
					}
				case 1:
					r.restart()
				case 2:
					r.must(r.Cut(rng.Uint64()))
					for name, text := range sure {
						if got := r.has(name); got != text {
							t.Fatalf("step %d: %s holds %.40q, %.40q was synced", step, name, got, text)
						}
					}
				default:
					f := r.create(name)
					r.write(f, int64(rng.IntN(3000)), string(bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, rng.IntN(2000))))
					delete(sure, name)
					if rng.IntN(2) == 0 {
						r.must(f.Sync())
						r.syncNames("")
						sure[name] = r.has(name)
					}
				}
			}
			for name := range sure {
				r.must(r.Remove(r.path(name)))
			}
			r.must(r.Cut(seed))
			r.must(r.Hold())
			live, err := filepath.Glob(r.path("f*"))
			r.must(err)
			pins, err := os.ReadDir(filepath.Join(r.dir, "pin"))
			r.must(err)
			if len(pins) != len(live) {
				t.Errorf("%d files are held, %d are there", len(pins), len(live))
			}
		})
	}
}

func TestDisk_FullAndBroken(t *testing.T) {
	r := newRig(t)
	f := r.create("f")
	r.write(f, 0, "text")
	r.Fill()
	r.write(f, 0, "TEXT") // takes no room
	_, err := f.WriteAt([]byte("more"), 4)
	if !vfs.IsNoSpaceError(err) || !errors.Is(err, chaos.ErrInjected) {
		t.Errorf("a write that takes room: %v", err)
	}
	if _, err := r.OpenReadWrite(r.path("g"), vfs.WriteCategoryUnspecified); !vfs.IsNoSpaceError(err) {
		t.Errorf("a new file: %v", err)
	}
	if u, err := r.GetDiskUsage(r.db); err != nil || u.AvailBytes != 0 {
		t.Errorf("%d bytes are free (%v)", u.AvailBytes, err)
	}
	r.Heal()
	r.write(f, 4, " and more")
	r.Break()
	broken := 0
	for range 100 {
		if n, err := f.WriteAt([]byte("text"), 0); err != nil {
			broken++
			if n >= 4 || !errors.Is(err, syscall.EIO) {
				t.Errorf("%d bytes were written, %v", n, err)
			}
		}
	}
	if broken == 0 || broken == 100 {
		t.Errorf("%d of 100 writes were broken off", broken)
	}
}

// markerFS looks, as a marker is created, whether what it names is durable.
type markerFS struct {
	*rig
	early []string
	seen  int
}

func (m *markerFS) Unwrap() vfs.FS { return m.rig.Disk }

func (m *markerFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if _, manifest, ok := strings.Cut(filepath.Base(name), ".MANIFEST-"); ok {
		m.seen++
		if durable := m.Durable(); !slices.Contains(durable, "MANIFEST-"+manifest) {
			m.early = append(m.early, filepath.Base(name))
		}
	}
	return m.rig.Disk.Create(name, c)
}

// A power cut never leaves the database with the name of a manifest that is not there.
func TestPlatter_ManifestsAreDurableBeforeTheyAreInForce(t *testing.T) {
	r := newRig(t)
	fs := &markerFS{rig: r}
	for range 3 {
		db, err := party.Open(t.Context(), r.db, &party.Options{Pebble: &pebble.Options{FS: fs}})
		r.must(err)
		r.must(db.Set(t.Context(), []byte("k"), []byte("v"), pebble.Sync))
		r.must(db.Close())
	}
	if fs.seen < 3 || len(fs.early) > 0 {
		t.Errorf("of %d markers these came too early: %q", fs.seen, fs.early)
	}
}
