package party_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/pebbleparty/pebbleparty/party"
)

// manifestFS has Pebble wait, or fail, as it opens a manifest.
type manifestFS struct {
	vfs.FS
	opens atomic.Pointer[func() error] // nil: it does neither
}

func (f *manifestFS) Unwrap() vfs.FS { return f.FS }

func (f *manifestFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if opens := f.opens.Load(); opens != nil && isManifest(name) {
		if err := (*opens)(); err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return f.FS.Open(name, opts...)
}

func (f *manifestFS) set(opens func() error) { f.opens.Store(&opens) }

// readyLog is closed, so to speak, when a follower has made ready to lead: its NATS server says so.
type readyLog struct {
	slog.Handler
	c chan struct{}
}

func (h readyLog) Enabled(context.Context, slog.Level) bool { return true }

func (h readyLog) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "Server is ready") {
		select {
		case h.c <- struct{}{}:
		default:
		}
	}
	return nil
}

// successor is a handle on dir that follows and is ready to lead.
func successor(t *testing.T, dir string, fs vfs.FS) *party.DB {
	t.Helper()
	ready := make(chan struct{}, 1)
	o := on(fs)
	o.Logger = slog.New(readyLog{slog.DiscardHandler, ready})
	db := open(t, dir, o)
	hasRole(t, db, party.Following)
	receive(t, "the follower to make ready", ready)
	return db
}

// written waits until the leader of dir has written down what the next one needs.
func written(t *testing.T, dir string) {
	t.Helper()
	until(t, "the memory file is there", func() bool {
		fi, err := os.Stat(filepath.Join(dir, "party", "memory"))
		return err == nil && fi.Size() > 0
	})
}

// A new leader takes writes while its Pebble opens. Reads, and what else needs the state, wait,
// and see them.
func TestDB_WritesBeforePebbleIsOpen(t *testing.T) {
	dir := newDirFor(t, on(nil).Pebble)
	leader := open(t, dir, on(nil))
	leads(t, leader)
	set(t, leader, "a", "1")
	written(t, dir)
	fs := &manifestFS{FS: vfs.Default}
	db := successor(t, dir, fs)
	held, release := make(chan struct{}, 100), make(chan struct{})
	fs.set(func() error { held <- struct{}{}; <-release; return nil })
	closed := make(chan error, 1)
	go func() { closed <- leader.Close() }()
	must(t, db.Set(within(t), []byte("b"), []byte("2"), pebble.Sync))
	leads(t, db)
	must(t, receive(t, "the old leader to close", closed))
	receive(t, "Pebble to be opened", held)
	follower := open(t, dir, on(nil)) // the leader answers, so it joins
	set(t, follower, "c", "3")
	waits := func(name string, call func(context.Context, *party.DB) error) {
		t.Helper()
		for who, db := range map[string]*party.DB{"leader": db, "follower": follower} {
			ctx, cancel := context.WithTimeout(within(t), 20*time.Millisecond)
			if err := call(ctx, db); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s of the %s did not wait: %v", name, who, err)
			}
			cancel()
		}
	}
	waits("Get", func(ctx context.Context, db *party.DB) error {
		_, err := db.Get(ctx, []byte("b"))
		return err
	})
	waits("NewIter", func(ctx context.Context, db *party.DB) error {
		it, err := db.NewIter(ctx, nil)
		if err != nil {
			return err
		}
		it.First()
		return errors.Join(it.Error(), it.Close())
	})
	waits("NewSnapshot", func(ctx context.Context, db *party.DB) error {
		s, err := db.NewSnapshot(ctx)
		if err != nil {
			return err
		}
		return s.Close()
	})
	waits("Backup", func(ctx context.Context, db *party.DB) error {
		_, err := db.Backup(ctx, io.Discard)
		return err
	})
	waits("Trim", func(ctx context.Context, db *party.DB) error {
		_, err := db.Trim(ctx, 1)
		return err
	})
	set(t, db, "d", "4")
	set(t, follower, "e", "5") // none of them holds up a write
	for name, db := range map[string]*party.DB{"one": db, "two": follower} {
		sub, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: name})
		must(t, err)
		must(t, sub.Close())
	}
	waits("CompareAndSwap", func(ctx context.Context, db *party.DB) error {
		_, err := db.CompareAndSwap(ctx, []byte("a"), []byte("other"), nil, nil)
		return err
	})
	close(release)
	for _, db := range []*party.DB{db, follower} {
		expect(t, db, "a", "1")
		expect(t, db, "b", "2")
		expect(t, db, "c", "3")
		expect(t, db, "d", "4")
		expect(t, db, "e", "5")
	}
}

// Where Pebble does not open the term ends. What was written meanwhile is in the log, callers get
// the reason, from every handle, and when Pebble opens again everything is there.
func TestDB_PebbleDoesNotOpen(t *testing.T) {
	t.Run("at once", func(t *testing.T) { pebbleDoesNotOpen(t, 0) })
	// So long that those who follow meanwhile have made ready to lead again.
	t.Run("after a while", func(t *testing.T) { pebbleDoesNotOpen(t, 300*time.Millisecond) })
}

func pebbleDoesNotOpen(t *testing.T, after time.Duration) {
	dir := newDirFor(t, on(nil).Pebble)
	leader := open(t, dir, on(nil))
	leads(t, leader)
	set(t, leader, "a", "1")
	written(t, dir)
	fs := &manifestFS{FS: vfs.Default}
	broken := errors.New("the disk is broken")
	var handles []*party.DB
	for range 3 {
		handles = append(handles, successor(t, dir, fs))
	}
	var opens atomic.Int64
	fs.set(func() error {
		opens.Add(1)
		<-time.After(after) // a slow disk
		return broken
	})
	closeDB(t, leader)
	var acked atomic.Int64
	var writers sync.WaitGroup
	for i, db := range handles {
		writers.Go(func() {
			for n, failed := 0, 0; failed < 3; n++ {
				key := fmt.Sprint("w", i, " ", n)
				err := db.Set(within(t), []byte(key), []byte(key), pebble.Sync)
				switch {
				case err == nil:
					acked.Add(1)
				case strings.Contains(err.Error(), broken.Error()):
					failed++
				default:
					t.Errorf("handle %d: %v", i, err)
					return
				}
			}
		})
	}
	writers.Wait()
	if _, err := handles[0].Get(within(t), []byte("a")); err == nil || !strings.Contains(err.Error(), broken.Error()) {
		t.Errorf("a read: %v", err)
	}
	st, err := handles[0].Status(within(t))
	must(t, err)
	// One process finds out in a term of its own; the others, and that one, then open Pebble first.
	if st.Term > 2 {
		t.Errorf("%d terms", st.Term)
	}
	fs.set(func() error { return nil })
	until(t, "calls go on", func() bool { return handles[0].Set(within(t), []byte("z"), []byte("1"), nil) == nil })
	expect(t, handles[1], "a", "1")
	keys := scan(t, handles[2], &party.IterOptions{LowerBound: []byte("w"), UpperBound: []byte("x")})
	if int64(len(keys)) < acked.Load() {
		t.Errorf("%d writes are there, %d were acknowledged: %v", len(keys), acked.Load(), keys)
	}
	t.Logf("%d writes acknowledged, %d attempts to open", acked.Load(), opens.Load())
}

// Who opens Pebble first takes away what was written down for the next leader: it may
// be of a log that another has taken the place of.
func TestOpen_RemovesOldMemory(t *testing.T) {
	fs := newFaultFS()
	dir := newDirFor(t, on(nil).Pebble)
	db := open(t, dir, on(fs))
	set(t, db, "a", "1")
	written(t, dir)
	closeDB(t, db)
	path := filepath.Join(dir, "party", "memory")
	fs.set(func(op, name string) error {
		if op == "create" && name == path {
			return errors.New("not now") // or it is written again at once
		}
		return nil
	})
	db = open(t, dir, on(fs))
	set(t, db, "a", "2")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}
