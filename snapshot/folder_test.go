package snapshot_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// Sweeps that go on all the time take nothing from those who live or are being made.
func TestSweep_TakesNothingFromTheLiving(t *testing.T) {
	o := newOrigin(t)
	sweeping, stop := context.WithCancel(t.Context())
	var sweepers, makers sync.WaitGroup
	var sweeps atomic.Int64
	for range 2 {
		sweepers.Go(func() {
			for sweeping.Err() == nil {
				if _, err := snapshot.Sweep(sweeping, o.o.Root); err != nil {
					t.Errorf("sweep: %v", err)
				}
				sweeps.Add(1)
			}
		})
	}
	enough := errors.New("enough")
	for range 4 {
		makers.Go(func() {
			options := o.o
			options.Checkpoint = func(_ context.Context, id string) (string, error) {
				path, err := snapshot.CheckpointPath(o.o.Root, id, 1)
				if err == nil {
					err = os.Mkdir(path, 0o700)
				}
				for at := sweeps.Load(); err == nil && sweeps.Load() < at+3; { // sweeps pass over it
					_, err = os.Stat(path)
				}
				if err != nil {
					t.Errorf("the folder was taken away: %v", err)
				}
				return "", enough
			}
			for range 50 {
				if _, err := snapshot.OpenReplica(context.Background(), options); !errors.Is(err, enough) {
					t.Errorf("open: %v", err)
				}
			}
		})
	}
	makers.Wait()
	stop()
	sweepers.Wait()
	_, err := snapshot.Sweep(t.Context(), o.o.Root)
	must(t, err)
}

// A process that gives up while the leader makes a checkpoint for it removes its
// folder, and the leader what it has made too late. While the process lives the
// folder is left alone.
func TestReclaim_WhatNobodyWaitsFor(t *testing.T) {
	o := newOrigin(t)
	o.set("k", "v")
	options := o.o
	id, gone := "", errors.New("gave up")
	options.Checkpoint = func(ctx context.Context, of string) (string, error) {
		path, err := o.o.Checkpoint(ctx, of)
		must(t, err)
		id = of
		must(t, snapshot.Reclaim(o.o.Root, id))
		if _, err := os.Stat(path); err != nil {
			t.Errorf("a checkpoint that is waited for: %v", err)
		}
		return "", gone
	}
	if _, err := snapshot.OpenReplica(t.Context(), options); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	late := filepath.Join(o.o.Root, id, "7")
	must(t, os.MkdirAll(filepath.Dir(late), 0o700)) // as a checkpoint does, which is still being made
	must(t, o.m.Checkpoint(late))
	must(t, snapshot.Reclaim(o.o.Root, id))
	if left := o.replicas(); len(left) > 0 {
		t.Errorf("replicas %q are left", left)
	}
}

func TestSweep_LeavesWhatIsNotOurs(t *testing.T) {
	root := t.TempDir()
	dead := filepath.Join(root, strings.Repeat("ab", 16))
	must(t, os.MkdirAll(filepath.Join(dead, "1"), 0o700))
	must(t, os.WriteFile(filepath.Join(dead, "1", "000001.sst"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(root, "else"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, strings.Repeat("cd", 16)), nil, 0o600))
	n, err := snapshot.Sweep(t.Context(), root)
	must(t, err)
	entries, err := os.ReadDir(root)
	must(t, err)
	if n != 1 || len(entries) != 2 {
		t.Errorf("removed %d, %d are left", n, len(entries))
	}
	if n, err := snapshot.Sweep(t.Context(), filepath.Join(root, "none")); n != 0 || err != nil {
		t.Errorf("no folder at all: %d, %v", n, err)
	}
}

func TestCheckpointPath_StaysWithinReplicas(t *testing.T) {
	root := t.TempDir()
	id := strings.Repeat("ab", 16)
	must(t, os.Mkdir(filepath.Join(root, id), 0o700))
	for _, id := range []string{"", ".", "..", "../" + id, id + "/..", strings.Repeat("../", 10) + "aa", id[:30], id + "00", id} {
		if path, err := snapshot.CheckpointPath(root, id, 1); err == nil {
			t.Errorf("%q gives %s", id, path)
		}
	}
	must(t, os.WriteFile(filepath.Join(root, id, "lock"), nil, 0o600))
	if path, err := snapshot.CheckpointPath(root, id, 7); err != nil || path != filepath.Join(root, id, "7") {
		t.Errorf("%s, %v", path, err)
	}
}
