package party

import (
	"errors"
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
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const dir = "/db"
	fs := vfs.NewMem()
	check(fs.MkdirAll(dir, 0o700))
	o := &pebble.Options{FS: fs, Comparer: pebble.DefaultComparer}
	var s *sequencer
	for life := range 2 {
		m, err := apply.Open(dir, o, nil, slog.New(slog.DiscardHandler))
		check(err)
		log, err := eventlog.Open(dir+"/log", eventlog.Options{FS: fs, ID: m.ID()})
		check(err)
		backlog, err := m.Recover(log)
		check(err)
		_, seq, err := log.StartTerm(time.Now())
		check(err)
		check(m.ApplyTerm(seq))
		if life == 0 {
			check(m.Flush(nil))
			entry := command(1)
			var g apply.Group
			m.Begin(&g, log.Last()+1, time.Now())
			g.Judge(&entry)
			_, err = log.Append(g.Entries(), true)
			check(errors.Join(err, m.Apply(&g), m.Close(false), log.Abort()))
			continue
		}
		if !m.Behind() || backlog == 0 {
			t.Fatal("there is nothing to replay")
		}
		word, err := eventlog.OpenCommit(filepath.Join(t.TempDir(), "commit"), log.ID())
		check(err)
		t.Cleanup(func() { check(errors.Join(word.Close(), m.Close(false), log.Abort())) })
		db := &DB{opts: Options{Pebble: o, Now: time.Now}}
		s = newSequencer(&leader{
			db: db, machine: m, log: log, word: word, station: &station{}, backlog: backlog, grew: make(chan int, 1),
			notifier: newNotifier(&leader{db: db, word: word}),
		})
	}
	return s
}

func command(number uint64) apply.Command {
	return apply.Command{Origin: apply.Origin{1}, Number: number, Low: number, Repr: apply.ReprSet([]byte("k"), make([]byte, 1<<20))}
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
	answer := func() {
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
	var work sync.WaitGroup
	work.Go(func() { _ = s.run(ctx) })
	const ahead = maxLead >> 20
	for n := range ahead { // an entry has a little more than a MiB
		send(2 + n)
		answer()
	}
	send(2 + ahead)
	select {
	case <-answers:
		t.Fatal("the log runs away from the state")
	case <-time.After(300 * time.Millisecond): // it would take a few
	}
	close(s.replayed)
	answer()
	for n := range 10 {
		send(3 + ahead + n)
		answer()
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
	wrong, right := command(3), command(4)
	wrong.Cond = &apply.Condition{Key: []byte("k"), Absent: true}
	right.Cond = &apply.Condition{Key: []byte("k"), Value: make([]byte, 1<<20)}
	send(wrong)
	send(right)
	close(s.replayed)
	if a, b := <-answers, <-answers; a.Outcome != apply.OutcomeNotSwapped || b.Outcome != apply.OutcomeDone {
		t.Fatalf("%+v, then %+v", a, b)
	}
	cancel()
	work.Wait()
}
