package party

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// behind is the write path of a leader whose state lacks a part of the log. Nobody
// replays it.
func behind(t *testing.T) *sequencer {
	t.Helper()
	s := behindOn(t, &heldFS{FS: vfs.NewMem()})
	if err := s.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// heldFS has each sync of a log that was opened do something before.
type heldFS struct {
	vfs.FS
	before func() error
}

type heldFile struct {
	vfs.File
	fs *heldFS
}

func (f *heldFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return &heldFile{file, f}, err
}

func (f *heldFile) SyncData() error {
	if f.fs.before != nil {
		if err := f.fs.before(); err != nil {
			return err
		}
	}
	return f.File.SyncData()
}

// behindOn is behind before the term begins.
func behindOn(t *testing.T, fs *heldFS) *sequencer {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const dir = "/db"
	check(fs.MkdirAll(dir, 0o700))
	o := &pebble.Options{FS: fs, Comparer: pebble.DefaultComparer}
	var s *sequencer
	for life := range 2 {
		m, err := apply.Open(dir, o, nil, slog.New(slog.DiscardHandler))
		check(err)
		log, err := eventlog.Open(dir+"/log", eventlog.Options{FS: fs, ID: m.ID()})
		check(err)
		check(m.Recover(log))
		term, seq, err := log.StartTerm(time.Now())
		check(err)
		if life == 0 {
			check(errors.Join(log.Sync(), m.ApplyTerm(seq), m.Flush(nil)))
			entry := command(1)
			var g apply.Group
			m.Begin(&g, log.Last()+1, time.Now())
			g.Judge(&entry)
			_, err = log.Append(g.Entries(), true)
			check(errors.Join(err, m.Apply(&g), m.Close(false), log.Abort()))
			continue
		}
		if !m.Behind() {
			t.Fatal("there is nothing to replay")
		}
		word, err := eventlog.OpenCommit(filepath.Join(t.TempDir(), "commit"), log.ID())
		check(err)
		t.Cleanup(func() { check(errors.Join(word.Close(), m.Close(false), log.Abort())) })
		db := &DB{opts: Options{Pebble: o, Now: time.Now}}
		s = newSequencer(&leader{
			term: term, first: seq, db: db, machine: m, log: log, word: word, memory: newMemoryFile(dir+"/memory", fs), station: &station{}, grew: make(chan int, 1),
			notifier: newNotifier(&leader{db: db, word: word}),
		})
	}
	return s
}

// What the last leader left and the record of the new term are durable, and the commit word
// counts them, before anybody is told of either. A write that waits already shares their
// sync, and one that has to wait for the state keeps nothing from beginning.
func TestSequencer_BeginsTheTerm(t *testing.T) {
	write := command(2)
	holds := command(2)
	holds.Cond = &apply.Condition{Key: []byte("k"), Value: make([]byte, 1<<20)}
	again := command(1)
	again.Retry = true
	for _, c := range []struct {
		name    string
		waits   []apply.Command
		entries uint64 // that are there when the term has begun
		answers int
	}{
		{"nothing waits", nil, 0, 0},
		{"a write", []apply.Command{write}, 1, 1}, // though it does not ask for a sync
		{"one that is logged", []apply.Command{again}, 0, 1},
		{"one with a condition", []apply.Command{holds}, 0, 0},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sync fails %t", c.name, fails), func(t *testing.T) {
				ctx, cancel := context30(t)
				defer cancel()
				broken := errors.New("the disk is broken")
				fs := &heldFS{FS: vfs.NewMem()}
				s := behindOn(t, fs)
				s.appended = func(int) {}
				answers := make(chan apply.Answer, 1)
				word := func() [3]uint64 { return [3]uint64{s.word.Term(), s.word.Committed(), s.word.Durable()} }
				syncs := 0
				fs.before = func() error {
					if syncs++; word() != [3]uint64{} || len(answers) > 0 {
						t.Errorf("before the sync the word has %d, and there are %d answers", word(), len(answers))
					}
					if fails {
						return broken
					}
					return nil
				}
				for _, w := range c.waits {
					j := &job{req: writeRequest{Origin: w.Origin, Commands: []apply.Command{w}}}
					j.reply = func(_ uint64, a []apply.Answer) { answers <- a[0] }
					s.local <- j
				}
				err := s.begin(ctx)
				if syncs != 1 {
					t.Errorf("%d syncs", syncs)
				}
				if fails {
					if !errors.Is(err, broken) || word() != [3]uint64{} || len(answers) > 0 {
						t.Errorf("began with %v, %d, %d answers", err, word(), len(answers))
					}
					return
				}
				last := s.l.first + c.entries
				if want := [3]uint64{s.l.term, last, last}; err != nil || word() != want || len(answers) != c.answers {
					t.Fatalf("began with %v, %d, want %d; %d answers", err, word(), want, len(answers))
				}
				fs.before = nil
				s.machine.Replay(ctx)
				close(s.replayed)
				ended := make(chan error, 1)
				go func() { ended <- s.run(ctx) }()
				if len(c.waits) > 0 {
					isDone(t, ctx, answers)
				}
				cancel()
				if err := <-ended; !errors.Is(err, errTermOver) {
					t.Error(err)
				}
			})
		}
	}
}

// isWanted waits until the sequencer waits for the state.
func isWanted(t *testing.T, ctx context.Context, s *sequencer) {
	t.Helper()
	select {
	case <-s.machine.Wanted():
	case <-ctx.Done():
		t.Fatal("nobody wants the state")
	}
}

// isDone receives the answer to a command that takes effect.
func isDone(t *testing.T, ctx context.Context, answers <-chan apply.Answer) {
	t.Helper()
	select {
	case a := <-answers:
		if a.Outcome != apply.OutcomeDone {
			t.Fatalf("%+v", a)
		}
	case <-ctx.Done():
		t.Fatal("no answer")
	}
}

func command(number uint64) apply.Command {
	return apply.Command{Origin: apply.Origin{1}, Number: number, Low: number, Repr: apply.ReprSet([]byte("k"), make([]byte, 1<<20))}
}

// The replay leaves the processors to others until somebody wants the state, and not for ever.
func TestLeader_ReplaysWhatIsWanted(t *testing.T) {
	for name, c := range map[string]struct {
		after          time.Duration
		wanted, closed bool
		replayed       bool
	}{
		"wanted":    {time.Hour, true, false, true},
		"not":       {time.Millisecond, false, false, true},
		"term over": {time.Hour, false, true, false},
	} {
		s := behind(t)
		ctx, cancel := context30(t)
		defer cancel()
		l := &leader{machine: s.machine}
		l.ctx, l.cancel = context.WithCancelCause(ctx)
		last := s.log.Last()
		done := make(chan struct{})
		go func() { defer close(done); l.replay(c.after) }()
		if c.wanted {
			s.machine.Want()
		}
		if c.closed {
			l.cancel(errTermOver)
		}
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatal(name, "does not end")
		}
		if got := s.machine.Applied(); (got == last) != c.replayed {
			t.Errorf("%s: applied %d of %d", name, got, last)
		}
		l.cancel(nil)
	}
}

// While the state lacks part of the log, writers are answered, but not without end:
// the log must not run away from a Pebble that is slow. And what was appended
// meanwhile counts as unflushed only when Pebble has it.
func TestSequencer_WaitsForAStateFarBehind(t *testing.T) {
	s := behind(t)
	ctx, cancel := context30(t)
	defer cancel()
	grown := 0
	s.appended = func(n int) { grown += n }
	answers := make(chan apply.Answer, 1)
	send := func(n int) {
		j := &job{req: writeRequest{Origin: apply.Origin{1}, Commands: []apply.Command{command(uint64(n))}}}
		j.reply = func(_ uint64, a []apply.Answer) { answers <- a[0] }
		s.local <- j
	}
	var work sync.WaitGroup
	work.Go(func() { _ = s.run(ctx) })
	const ahead = maxLead >> 20
	for n := range ahead { // an entry has a little more than a MiB
		send(2 + n)
		isDone(t, ctx, answers)
	}
	send(2 + ahead)
	isWanted(t, ctx, s)
	select {
	case <-answers:
		t.Fatal("the log runs away from the state")
	case <-time.After(300 * time.Millisecond): // it would take a few
	}
	close(s.replayed)
	isDone(t, ctx, answers)
	for n := range 10 {
		send(3 + ahead + n)
		isDone(t, ctx, answers)
	}
	cancel()
	work.Wait()
	if want := (1 + ahead + 1 + 10) << 20; grown < want || grown > want+want/100 {
		t.Errorf("%d bytes to flush, want %d", grown, want)
	}
}

// A condition waits for the state, and what comes to it first does not.
func TestSequencer_ConditionsWaitForTheState(t *testing.T) {
	s := behind(t)
	ctx, cancel := context30(t)
	defer cancel()
	s.appended = func(int) {}
	answers := make(chan apply.Answer, 2)
	send := func(c apply.Command) {
		j := &job{req: writeRequest{Origin: c.Origin, Commands: []apply.Command{c}}}
		j.reply = func(_ uint64, a []apply.Answer) { answers <- a[0] }
		s.local <- j
	}
	var work sync.WaitGroup
	work.Go(func() { _ = s.run(ctx) })
	send(command(2))
	if a := <-answers; a.Outcome != apply.OutcomeDone || s.machine.Applied() >= a.Seq {
		t.Fatalf("%+v, applied %d", a, s.machine.Applied())
	}
	select {
	case <-s.machine.Wanted():
		t.Error("a write without a condition wants the state")
	default:
	}
	wrong, right := command(3), command(4)
	wrong.Cond = &apply.Condition{Key: []byte("k"), Absent: true}
	right.Cond = &apply.Condition{Key: []byte("k"), Value: make([]byte, 1<<20)}
	send(wrong)
	send(right)
	isWanted(t, ctx, s)
	close(s.replayed)
	if a, b := <-answers, <-answers; a.Outcome != apply.OutcomeNotSwapped || b.Outcome != apply.OutcomeDone {
		t.Fatalf("%+v, then %+v", a, b)
	}
	cancel()
	work.Wait()
}
