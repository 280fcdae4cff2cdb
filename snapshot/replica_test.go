package snapshot_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// origin is what a leader has open, for replicas in the same process.
type origin struct {
	t           testing.TB
	dir         string
	m           *apply.Machine
	log         *eventlog.Log
	word        *eventlog.Commit
	g           apply.Group
	number      uint64
	checkpoints uint64
	o           snapshot.ReplicaOptions
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func newOrigin(t testing.TB) *origin {
	t.Helper()
	o := &origin{t: t, dir: t.TempDir()}
	po := &pebble.Options{FS: vfs.Default, Logger: silent{}}
	must(t, os.Mkdir(filepath.Join(o.dir, "party"), 0o700))
	lock, err := pebble.LockDirectory(o.dir, vfs.Default)
	must(t, err)
	o.m, err = apply.Open(o.dir, po, lock, slog.New(slog.DiscardHandler))
	must(t, err)
	path := func(name string) string { return filepath.Join(o.dir, "party", name) }
	o.log, err = eventlog.Open(path("log"), eventlog.Options{FS: vfs.Default, SegmentBytes: 64 << 10, ChunkBytes: 4 << 10})
	must(t, err)
	must(t, o.m.Recover(o.log, vfs.Default, path("log")))
	o.word, err = eventlog.OpenCommit(path("commit"), o.log.ID())
	must(t, err)
	t.Cleanup(func() {
		must(t, errors.Join(o.m.Close(false), o.log.Abort(), o.word.Close(), lock.Close()))
		if left := o.replicas(); len(left) > 0 && !t.Failed() {
			t.Errorf("replicas %q are left", left)
		}
	})
	_, seq, err := o.log.StartTerm(log0)
	must(t, err)
	o.word.SetCommitted(seq)
	must(t, o.m.ApplyTerm(seq))
	o.o = snapshot.ReplicaOptions{
		Root: path("replicas"), Log: path("log"), Commit: path("commit"), Pebble: po,
		Logger: slog.New(slog.DiscardHandler),
		Checkpoint: func(_ context.Context, id string) (string, error) {
			o.checkpoints++
			path, err := snapshot.CheckpointPath(path("replicas"), id, o.checkpoints)
			if err != nil {
				return "", err
			}
			return path, o.m.Checkpoint(path)
		},
	}
	return o
}

func (o *origin) set(key, value string) (seq uint64) {
	o.t.Helper()
	return o.write(&apply.Command{Repr: apply.ReprSet([]byte(key), []byte(value))})
}

// cursor makes a cursor that stands at seq.
func (o *origin) cursor(name string, seq uint64) {
	o.t.Helper()
	var c apply.Command
	apply.MoveCursor(&c, name, nil, &seq)
	o.write(&c)
}

func (o *origin) write(c *apply.Command) (seq uint64) {
	o.t.Helper()
	o.number++
	o.m.Begin(&o.g, o.log.Last()+1, log0)
	c.Number, c.Low = o.number, o.number
	binary.LittleEndian.PutUint64(c.Origin[:], 1)
	if a := o.g.Judge(c); a.Outcome != apply.OutcomeDone {
		o.t.Fatalf("%+v", a)
	}
	_, err := o.log.Append(o.g.Entries(), false)
	must(o.t, err)
	o.word.SetCommitted(o.log.Last())
	must(o.t, o.m.Apply(&o.g))
	return o.log.Last()
}

// retain lets go of all log that recovery does not need.
func (o *origin) retain() {
	o.t.Helper()
	must(o.t, o.m.Flush(nil))
	durable, err := o.m.Durable()
	must(o.t, err)
	must(o.t, o.log.Retain(eventlog.Retention{MaxBytes: 1}, durable))
}

func (o *origin) replicas() (names []string) {
	o.t.Helper()
	entries, err := os.ReadDir(o.o.Root)
	if !errors.Is(err, os.ErrNotExist) {
		must(o.t, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (o *origin) replica() *snapshot.Replica {
	o.t.Helper()
	r, err := snapshot.OpenReplica(o.t.Context(), o.o)
	must(o.t, err)
	o.t.Cleanup(func() { must(o.t, r.Close()) })
	return r
}

func (o *origin) see(r *snapshot.Replica, key, value string) {
	o.t.Helper()
	v, err := r.View(o.t.Context(), 0)
	must(o.t, err)
	got, err := v.Get(nil, []byte(key))
	if err != nil || string(got) != value || v.Seq() != o.log.Last() {
		o.t.Fatalf("at %d key %s is %.40q, %v; want %.40q at %d", v.Seq(), key, got, err, value, o.log.Last())
	}
	must(o.t, v.Close())
}

func TestReplica_SeesAllThatIsCommitted(t *testing.T) {
	o := newOrigin(t)
	r := o.replica() // of a Pebble that has not flushed at all
	o.see2(r, 200)
	must(t, o.m.Flush(nil))
	o.see2(o.replica(), 50)
	o.see2(r, 50)
}

func (o *origin) see2(r *snapshot.Replica, n int) {
	o.t.Helper()
	for i := range n {
		o.set("k", fmt.Sprint(i))
		o.see(r, "k", fmt.Sprint(i))
	}
}

func TestReplica_SeesWhatItIsTold(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	o.set("k", "1")
	seq := o.set("k", "2")
	o.word.SetCommitted(seq - 1) // a word that lags; the caller knows better
	v, err := r.View(t.Context(), seq)
	must(t, err)
	if v.Seq() != seq {
		t.Errorf("at %d, want %d", v.Seq(), seq)
	}
	must(t, v.Close())
	o.word.SetCommitted(seq)
}

func TestReplica_FindsAWordThatWasReplaced(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	o.set("k", "1")
	o.see(r, "k", "1")
	must(t, os.Remove(o.o.Commit))
	if _, err := r.View(t.Context(), 0); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a word: %v", err)
	}
	fresh, err := eventlog.OpenCommit(o.o.Commit, o.log.ID()) // as the next leader does
	must(t, err)
	must(t, o.word.Close())
	o.word = fresh
	o.set("k", "2")
	o.see(r, "k", "2")
	must(t, os.Remove(o.o.Commit))
	foreign, err := eventlog.OpenCommit(o.o.Commit, eventlog.ID{9})
	must(t, err)
	if _, err := r.View(t.Context(), 0); err == nil {
		t.Error("took the word of another database")
	}
	must(t, foreign.Close())
}

// The log that a checkpoint needs is deleted before the replica can open it.
func TestReplica_GetsAnotherCheckpointWhenTheLogWasFaster(t *testing.T) {
	o := newOrigin(t)
	o.set("k", "0")
	must(t, o.m.Flush(nil))
	checkpoint := o.o.Checkpoint
	o.o.Checkpoint = func(ctx context.Context, id string) (string, error) {
		path, err := checkpoint(ctx, id)
		if o.checkpoints < 3 {
			for range 40 {
				o.set("k", strings.Repeat("x", 10_000))
			}
			o.retain()
		}
		return path, err
	}
	o.set("k", "1")
	r := o.replica()
	o.set("k", "2")
	o.see(r, "k", "2")
	if o.checkpoints != 3 {
		t.Errorf("%d checkpoints", o.checkpoints)
	}
	o.checkpoints = 0
	o.o.Checkpoint = func(ctx context.Context, id string) (string, error) {
		path, err := checkpoint(ctx, id)
		for range 40 {
			o.set("k", strings.Repeat("x", 10_000))
		}
		o.retain()
		return path, err
	}
	if _, err := snapshot.OpenReplica(t.Context(), o.o); !errors.Is(err, eventlog.ErrCompacted) {
		t.Errorf("each time: %v", err)
	}
	if left := o.replicas(); len(left) != 1 {
		t.Errorf("%d replicas are left", len(left))
	}
}

func TestReplica_FailsForGoodBehindRetention(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	o.set("k", "1")
	v, err := r.View(t.Context(), 0)
	must(t, err)
	if r.Worn(t.Context()) {
		t.Error("it is worn from the start")
	}
	for range 60 {
		o.set("k", strings.Repeat("x", 10_000))
	}
	o.retain()
	for range 2 {
		if _, err := r.View(t.Context(), 0); !errors.Is(err, eventlog.ErrCompacted) {
			t.Errorf("view: %v", err)
		}
		if !r.Worn(t.Context()) {
			t.Error("it is not worn")
		}
	}
	if got, err := v.Get(nil, []byte("k")); err != nil || string(got) != "1" {
		t.Errorf("the view that was there: %q, %v", got, err)
	}
	must(t, v.Close())
}

func TestReplica_IsWornByMuchLog(t *testing.T) {
	o := newOrigin(t)
	done, waits := o.replica(), o.replica()
	value := strings.Repeat("x", 1<<20)
	o.set("k", "1")
	o.see(done, "k", "1")
	o.see(waits, "k", "1")
	for range 1100 { // far behind in numbers, not in bytes
		o.set("small", "1")
	}
	if waits.Worn(t.Context()) {
		t.Error("a thousand small entries wear it out")
	}
	for range 70 {
		o.set("k", value)
		if i := o.log.Last(); i%8 == 0 {
			o.see(done, "k", value)
		}
	}
	if !done.Worn(t.Context()) {
		t.Errorf("the one that applied %d is not worn", done.Applied())
	}
	if !waits.Worn(t.Context()) {
		t.Errorf("the one that would have to apply %d is not worn", o.log.Last()-waits.Applied())
	}
}

func TestReplica_LeavesNothingWhenItCannotOpen(t *testing.T) {
	broken := errors.New("broken")
	for name, spoil := range map[string]func(o *origin){
		"no checkpoint": func(o *origin) {
			o.o.Checkpoint = func(context.Context, string) (string, error) { return "", broken }
		},
		"half a checkpoint": func(o *origin) {
			next := o.o.Checkpoint
			o.o.Checkpoint = func(ctx context.Context, id string) (string, error) {
				path, err := next(ctx, id)
				names, _ := filepath.Glob(filepath.Join(path, "MANIFEST-*"))
				for _, n := range names {
					err = errors.Join(err, os.Truncate(n, 10))
				}
				return path, err
			}
		},
		"an empty checkpoint": func(o *origin) {
			o.o.Checkpoint = func(_ context.Context, id string) (string, error) {
				path, err := snapshot.CheckpointPath(o.o.Root, id, 1)
				return path, errors.Join(err, os.Mkdir(path, 0o700))
			}
		},
		"no log": func(o *origin) { o.o.Log = filepath.Join(o.dir, "none") },
		"no place": func(o *origin) {
			o.o.Root = filepath.Join(o.dir, "CURRENT-file", "replicas")
			must(o.t, os.WriteFile(filepath.Join(o.dir, "CURRENT-file"), nil, 0o600))
		},
		"the log of another": func(o *origin) {
			o.o.Log = filepath.Join(o.dir, "party", "other")
			l, err := eventlog.Open(o.o.Log, eventlog.Options{FS: vfs.Default, ID: eventlog.ID{1}})
			must(o.t, err)
			_, _, err = l.StartTerm(time.Unix(1, 0))
			must(o.t, errors.Join(err, l.Close()))
			must(o.t, o.m.Flush(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t)
			o.set("k", "1")
			spoil(o)
			r, err := snapshot.OpenReplica(t.Context(), o.o)
			if err == nil {
				must(t, r.Close())
				t.Fatal("it opened")
			}
			t.Log(err)
			o.o.Root = filepath.Join(o.dir, "party", "replicas")
			if left := o.replicas(); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

func TestReplica_ContextEndsWhileAnotherWorks(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				v, err := r.View(ctx, 0)
				if err == nil {
					err = v.Close()
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("view: %v", err)
				}
			}
		})
	}
	for i := range 300 {
		o.set("k", fmt.Sprint(i))
	}
	all.Wait()
	must(t, r.Close())
	must(t, r.Close())
	if _, err := r.View(t.Context(), 0); !errors.Is(err, snapshot.ErrReplicaClosed) {
		t.Errorf("view of a closed one: %v", err)
	}
}

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

func TestReplica_CurrentSeesAllThatIsCommitted(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	for i := range 200 {
		value := fmt.Sprint(i)
		o.set("k", value)
		must(t, r.Current(t.Context()))
		if v, err := r.Get(nil, []byte("k")); err != nil || string(v) != value {
			t.Fatalf("it has %q, %v after %s was committed", v, err, value)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.Current(ctx)) // nothing is missing: it does not look
	o.set("k", "more")
	if err := r.Current(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestReplica_RevokedAnswersNoMore(t *testing.T) {
	o := newOrigin(t)
	r, idle := o.replica(), o.replica()
	o.set("k", "1")
	must(t, r.Current(t.Context()))
	must(t, snapshot.Revoke(t.Context(), o.o.Root))
	for name, r := range map[string]*snapshot.Replica{"in use": r, "never used": idle} {
		for range 2 {
			if err := r.Current(t.Context()); !errors.Is(err, snapshot.ErrRevoked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := r.View(t.Context(), 0); !errors.Is(err, snapshot.ErrRevoked) {
			t.Errorf("%s: view: %v", name, err)
		}
		if !r.Worn(t.Context()) {
			t.Errorf("%s: not worn", name)
		}
	}
	fresh := o.replica()
	must(t, fresh.Current(t.Context()))
	o.see(fresh, "k", "1")
}

// What is left of replicas whose processes are gone does not keep a leader from
// its term, damaged or not; one that is alive and cannot be revoked does.
func TestRevoke_OfTheDeadAndTheDamaged(t *testing.T) {
	o := newOrigin(t)
	must(t, snapshot.Revoke(t.Context(), filepath.Join(o.o.Root, "none")))
	dead := filepath.Join(o.o.Root, strings.Repeat("ab", 16))
	must(t, os.MkdirAll(dead, 0o700))
	must(t, os.WriteFile(filepath.Join(dead, "revoked"), nil, 0o600))
	r := o.replica()
	must(t, snapshot.Revoke(t.Context(), o.o.Root))
	if err := r.Current(t.Context()); !errors.Is(err, snapshot.ErrRevoked) {
		t.Errorf("beside a dead one: %v", err)
	}
	other := o.replica()
	for _, name := range o.replicas() {
		path := filepath.Join(o.o.Root, name, "revoked")
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	if err := snapshot.Revoke(t.Context(), o.o.Root); !errors.Is(err, eventlog.ErrForeign) {
		t.Errorf("of a living one that is damaged: %v", err)
	}
	must(t, other.Current(t.Context()))
}

func TestReplica_TiredGoesOn(t *testing.T) {
	o := newOrigin(t)
	r := o.replica()
	must(t, r.Current(t.Context()))
	for i := 0; !r.Tired(); i++ {
		if i == 200 {
			t.Fatal("it never tires")
		}
		o.set("k", strings.Repeat("x", 1<<20))
		must(t, r.Current(t.Context()))
	}
	o.set("k", "1")
	must(t, r.Current(t.Context()))
	if v, err := r.Get(nil, []byte("k")); err != nil || string(v) != "1" {
		t.Errorf("it has %.20q, %v", v, err)
	}
}
