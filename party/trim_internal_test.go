package party

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

// As a term begins Pebble may lack part of the log. A Trim then waits for it: a flush
// before would leave most of what it was asked to remove.
func TestTrim_WaitsForTheReplay(t *testing.T) {
	s := behind(t)
	ctx, cancel := context30(t)
	defer cancel()
	s.appended = func(int) {}
	answers := make(chan apply.Answer, 1)
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.run(ctx); !errors.Is(err, errTermOver) {
			t.Error(err)
		}
	})
	const groups = 4 // of a MiB: the last does not fit into the first segment
	for n := range groups {
		j := &job{req: writeRequest{Origin: apply.Origin{1}, Commands: []apply.Command{command(uint64(2 + n))}}}
		j.reply = func(_ uint64, a []apply.Answer) { answers <- a[0] }
		s.local <- j
		if a := <-answers; a.Outcome != apply.OutcomeDone {
			t.Fatalf("%+v", a)
		}
	}
	l := &leader{machine: s.machine, log: s.log, word: s.word, ctx: ctx, gate: newGate()}
	type result struct {
		first uint64
		err   error
	}
	trimmed := make(chan result, 1)
	work.Go(func() {
		first, err := l.trim(context.Background(), s.log.Last())
		trimmed <- result{first, err}
	})
	select {
	case r := <-trimmed:
		t.Errorf("trimmed to %d, %v, while Pebble had %d of %d", r.first, r.err, s.machine.Applied(), s.log.Last())
	case <-time.After(300 * time.Millisecond): // it would take a few
		s.machine.Replay(ctx)
		close(s.replayed)
		if r := <-trimmed; r.err != nil || r.first <= 2 {
			t.Errorf("trimmed to %d, %v", r.first, r.err)
		}
	}
	cancel()
	work.Wait()
}
