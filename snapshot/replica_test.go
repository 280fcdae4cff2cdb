package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

func TestReplica_SeesAllThatIsCommitted(t *testing.T) {
	o := newOrigin(t)
	r := o.replica() // of a Pebble that has not flushed at all
	o.see2(r, 200)
	must(t, o.m.Flush(nil))
	o.see2(o.replica(), 50)
	o.see2(r, 50)
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
	v.Close()
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
	v.Close()
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
					v.Close()
				} else if !errors.Is(err, context.Canceled) {
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
