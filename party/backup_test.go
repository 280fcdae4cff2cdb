package party_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

func backup(t testing.TB, db *party.DB) ([]byte, uint64) {
	t.Helper()
	var b bytes.Buffer
	seq, err := db.Backup(within(t), &b)
	must(t, err)
	return b.Bytes(), seq
}

func backupSince(t testing.TB, db *party.DB, seq uint64) ([]byte, uint64) {
	t.Helper()
	var b bytes.Buffer
	upTo, err := db.BackupSince(within(t), &b, seq)
	must(t, err)
	return b.Bytes(), upTo
}

// restore restores a backup and checks its sequence number.
func restore(t testing.TB, stream []byte, dir string, o *party.Options, seq uint64) {
	t.Helper()
	got, err := party.RestoreWith(within(t), bytes.NewReader(stream), dir, o)
	must(t, err)
	if got != seq {
		t.Fatalf("restored at %d, the backup is at %d", got, seq)
	}
}

func TestDB_BackupsUnderLoadAreTheLogUpToThem(t *testing.T) {
	o := func() *party.Options {
		o := quietly()
		o.Pebble.Comparer, o.Pebble.Merger, o.Pebble.MemTableSize = backwards, sum, 64<<10
		return o
	}
	both(t, o, func(t *testing.T, dir string, db *party.DB) {
		log := newReplay(t, dir, o().Pebble)
		for i := range 500 {
			must(t, db.Set(within(t), fmt.Appendf(nil, "old%04d", i), pattern(1000), pebble.NoSync))
		}
		var writers sync.WaitGroup
		var stop atomic.Bool
		for w := range 3 {
			writers.Go(func() {
				for i := 0; i < 3000 && !stop.Load(); i++ {
					var b pebble.Batch
					_ = b.Set(fmt.Appendf(nil, "w%d-%06d", w, i%200), pattern(i%900), nil)
					_ = b.Merge([]byte("sum"), []byte("1"), nil)
					_ = b.Delete(fmt.Appendf(nil, "old%04d", i%400), nil)
					if i%9 == 3 {
						_ = b.DeleteRange(fmt.Appendf(nil, "w%d-%06d", w, i-1), fmt.Appendf(nil, "w%d-%06d", w, i-3), nil)
					}
					if _, err := db.Apply(context.Background(), &b, pebble.NoSync); err != nil {
						t.Errorf("writer: %v", err)
						return
					}
				}
			})
		}
		restored := filepath.Join(t.TempDir(), "db")
		stream, seq := backup(t, db)
		restore(t, stream, restored, o(), seq)
		sameKeys(t, "the full backup", plainKeys(t, restored, o().Pebble), log.upTo(t, seq))
		for i := range 4 {
			since := seq
			stream, seq = backupSince(t, db, since)
			if got, from, err := party.VerifyBackup(within(t), bytes.NewReader(stream)); err != nil || got != seq || from != since {
				t.Errorf("backup %d is from %d to %d, %v; want %d to %d", i, from, got, err, since, seq)
			}
			restore(t, stream, restored, o(), seq)
			sameKeys(t, fmt.Sprint("incremental backup ", i), plainKeys(t, restored, o().Pebble), log.upTo(t, seq))
		}
		stop.Store(true)
		writers.Wait()
		stream, last := backupSince(t, db, seq)
		restore(t, stream, restored, o(), last)
		stream, again := backupSince(t, db, last) // nothing was written since
		restore(t, stream, restored, o(), again)

		// It is a database of its own, whose numbers go on.
		want := log.upTo(t, again)
		st, err := db.Status(within(t))
		must(t, err)
		other := open(t, restored, o())
		leads(t, other)
		sameKeys(t, "opened", contents(t, take(t, other)), want)
		var b pebble.Batch
		must(t, b.Set([]byte("new"), []byte("1"), nil))
		next, err := other.Apply(within(t), &b, nil)
		must(t, err)
		if next <= again || next > again+3 {
			t.Errorf("the first write is number %d, the backup was at %d", next, again)
		}
		if ost, err := other.Status(within(t)); err != nil || ost.Database == st.Database || ost.FirstSeq <= again {
			t.Errorf("%+v, %v; the other is database %s", ost, err, st.Database)
		}
		closeDB(t, other)
		if _, err := party.RestoreWith(within(t), bytes.NewReader(stream), restored, o()); !errors.Is(err, party.ErrBackupGap) {
			t.Errorf("on a database that was opened: %v", err)
		}
		if v, err := party.VerifyWith(within(t), restored, o()); err != nil || v.Live {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

func TestDB_BackupOverKilledLeaders(t *testing.T) {
	dir := newDir(t)
	a, b := start(t, config{Dir: dir}), start(t, config{Dir: dir})
	db := open(t, dir, quietly())
	for i := range 200 {
		must(t, db.Set(within(t), fmt.Appendf(nil, "k%03d", i), pattern(20_000), pebble.NoSync))
	}
	slow := &slowly{}
	slow.at = func() { // in the middle of it
		s, err := db.Status(within(t))
		must(t, err)
		for _, p := range []*process{a, b} {
			if p.pid == s.LeaderPID {
				p.kill()
			}
		}
		set(t, db, "k000", "later")
	}
	seq, err := db.Backup(within(t), slow)
	must(t, err)
	restored := filepath.Join(t.TempDir(), "db")
	restore(t, slow.Bytes(), restored, nil, seq)
	sameKeys(t, "restored", plainKeys(t, restored, nil), newReplay(t, dir, nil).upTo(t, seq))
}

// slowly calls at once as it is written to.
type slowly struct {
	bytes.Buffer
	at func()
}

func (s *slowly) Write(p []byte) (int, error) {
	if s.at != nil && s.Len() > 1<<20 {
		s.at()
		s.at = nil
	}
	return s.Buffer.Write(p)
}

func TestDB_BackupErrors(t *testing.T) {
	dir := newDir(t)
	o := quietly()
	o.Retention.MaxBytes = 4 << 20
	db := open(t, dir, o)
	leads(t, db)
	set(t, db, "a", "1")
	_, seq := backup(t, db)
	for range 12 {
		must(t, db.Set(within(t), []byte("a"), pattern(1<<20), pebble.NoSync))
	}
	until(t, "the log begins later", func() bool {
		s, err := db.Status(within(t))
		must(t, err)
		must(t, db.Set(within(t), []byte("b"), pattern(100<<10), pebble.NoSync))
		return s.FirstSeq > seq+1
	})
	var compacted *party.CompactedError
	if _, err := db.BackupSince(within(t), &bytes.Buffer{}, seq); !errors.As(err, &compacted) || !errors.Is(err, party.ErrCompacted) || compacted.First <= seq {
		t.Errorf("behind retention: %v", err)
	}
	if _, err := db.BackupSince(within(t), &bytes.Buffer{}, 1<<40); err == nil {
		t.Error("a backup of what is not there yet")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	want(t, func() error { _, err := db.Backup(ended, &bytes.Buffer{}); return err }(), context.Canceled)
	cause := errors.New("no room")
	want(t, func() error { _, err := db.Backup(within(t), failing{cause}); return err }(), cause)
	stream, seq := backup(t, db)
	set(t, db, "a", "2")
	want(t, func() error { _, err := db.BackupSince(within(t), failing{cause}, seq); return err }(), cause)
	full := t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "mine"), nil, 0o600))
	want(t, func() error { _, err := party.Restore(within(t), bytes.NewReader(stream), full); return err }(), party.ErrNotEmpty)
	want(t, func() error { _, err := party.Restore(within(t), bytes.NewReader(stream), dir); return err }(), party.ErrNotEmpty)
	wrong := quietly()
	wrong.Pebble.Merger = sum
	target := filepath.Join(t.TempDir(), "db")
	want(t, func() error {
		_, err := party.RestoreWith(within(t), bytes.NewReader(stream), target, wrong)
		return err
	}(), party.ErrIncompatible)
	want(t, func() error {
		_, err := party.Restore(within(t), bytes.NewReader(stream[:len(stream)/2]), target)
		return err
	}(), party.ErrCorrupt)
	want(t, func() error {
		_, err := party.Restore(within(t), strings.NewReader("no backup at all, this"), target)
		return err
	}(), party.ErrCorrupt)
	want(t, func() error { _, err := party.Restore(ended, bytes.NewReader(stream), target); return err }(), context.Canceled)
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is there: %v", err)
	}
	must(t, db.Close())
	want(t, func() error { _, err := db.Backup(within(t), &bytes.Buffer{}); return err }(), party.ErrClosed)
	want(t, func() error { _, err := db.BackupSince(within(t), &bytes.Buffer{}, 1); return err }(), party.ErrClosed)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestDB_CloseEndsBackups(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, quietly())
	for i := range 300 {
		must(t, db.Set(within(t), fmt.Appendf(nil, "k%03d", i), pattern(20_000), pebble.NoSync))
	}
	closed := make(chan error, 1)
	w := &slowly{at: func() {
		go func() { closed <- db.Close() }()
		until(t, "the handle is closing", func() bool { _, err := db.Has(within(t), []byte("k")); return errors.Is(err, party.ErrClosed) })
	}}
	// It may have come to its end before it learnt.
	if _, err := db.Backup(within(t), w); err != nil && !errors.Is(err, party.ErrClosed) {
		t.Errorf("backup: %v", err)
	}
	must(t, receive(t, "Close", closed))
}

// A writer that blocks holds up nobody's Close, and is not written to after it.
func TestDB_CloseDoesNotWaitForTheWriterOfABackup(t *testing.T) {
	both(t, quietly, func(t *testing.T, dir string, db *party.DB) {
		for i := range 100 {
			must(t, db.Set(within(t), fmt.Appendf(nil, "k%03d", i), pattern(20_000), pebble.NoSync))
		}
		w := &stuckWriter{in: make(chan struct{}), out: make(chan struct{})}
		done := make(chan error, 1)
		go func() { _, err := db.Backup(within(t), w); done <- err }()
		receive(t, "the writer is stuck", w.in)
		closed := make(chan error, 1)
		go func() { closed <- db.Close() }()
		must(t, receive(t, "Close", closed))
		close(w.out)
		want(t, receive(t, "Backup", done), party.ErrClosed)
		if w.writes != 1 {
			t.Errorf("%d writes", w.writes)
		}
	})
}

// stuckWriter says that it is being written to, and takes nothing until out is
// closed.
type stuckWriter struct {
	in, out chan struct{}
	writes  int
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	if w.writes++; w.writes == 1 {
		close(w.in)
		<-w.out
	}
	return len(p), nil
}

// What an empty folder is reached by stays, and the database is in the folder.
func TestRestore_ThroughASymbolicLink(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, quietly())
	set(t, db, "a", "1")
	full, seq := backup(t, db)
	set(t, db, "b", "2")
	inc, upTo := backupSince(t, db, seq)
	closeDB(t, db)
	to, above := filepath.Join(t.TempDir(), "volume"), t.TempDir()
	must(t, os.Mkdir(to, 0o700))
	link := filepath.Join(above, "link")
	if err := os.Symlink(to, link); err != nil {
		t.Skipf("cannot make a symbolic link (on Windows it takes developer mode): %v", err)
	}
	restore(t, full, link, nil, seq)
	restore(t, inc, link, nil, upTo)
	if got, err := os.Readlink(link); err != nil || got != to {
		t.Errorf("the link leads to %q, %v", got, err)
	}
	sameKeys(t, "restored", plainKeys(t, to, nil), map[string]string{"a": "1", "b": "2"})
	must(t, os.Symlink(filepath.Join(above, "nowhere"), filepath.Join(above, "dangling")))
	if _, err := party.Restore(within(t), bytes.NewReader(full), filepath.Join(above, "dangling")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("through a link to nothing: %v", err)
	}
	deep := filepath.Join(above, "x", "y", "z")
	restore(t, full, deep, nil, seq)
	sameKeys(t, "restored deep down", plainKeys(t, deep, nil), map[string]string{"a": "1"})
}
