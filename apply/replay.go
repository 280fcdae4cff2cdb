package apply

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// replay is what Pebble lacks of the log when a term begins. Commands need not
// wait for it: who wrote what is learned from the log in a fraction of the time,
// and answers rest on the log. So it is applied beside the first groups, which are
// read back from the log like the rest.
type replay struct {
	reader *eventlog.Reader
	memory *memory // as Pebble has it; that of the Machine is ahead, at the end of the log
	failed error   // for good: memory may have entries then that Pebble does not

	// judged is how far it may go beside the goroutine that judges: up to there all is
	// as durable as it was asked to be, the commit word counts it, and the Machine's
	// memory has it. What has only been appended must not be seen by anybody.
	judged atomic.Uint64
}

// learn reads the log behind what is applied, so that commands can be judged: all
// but a condition on a key, which waits for the state. It returns how many bytes
// the entries there have.
func (m *Machine) learn(log *eventlog.Log) (backlog int, err error) {
	// First may be above the next number and nothing be missing: a term record
	// that leaves a gap before it can begin a segment. The reader knows.
	r, err := log.OpenReader(m.Applied() + 1)
	if errors.Is(err, eventlog.ErrCompacted) {
		err = fmt.Errorf("%w: the state ends at %d, but the log starts at %d: %w", ErrCorrupt, m.Applied(), log.First(), err)
	}
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	behind := m.memory.clone()
	for seq := m.Applied(); seq < log.Last(); {
		rec, ok, err := r.Next(log.Last())
		if err == nil && !ok {
			err = endsEarly(seq)
		}
		if err != nil {
			return 0, err
		}
		if seq = rec.Seq; rec.Kind != eventlog.KindEntry {
			continue
		}
		e, err := decodeHead(rec.Payload)
		if err != nil {
			return 0, fmt.Errorf("entry %d: %w", seq, err)
		}
		m.memory.learn(&e, seq)
		backlog += len(rec.Payload)
	}
	if err := r.Rewind(m.Applied() + 1); err != nil {
		return 0, err
	}
	m.replay = &replay{reader: r, memory: behind}
	m.replay.judged.Store(log.Last())
	return backlog, nil
}

// Behind tells whether Pebble lacks part of the log. What is judged and applied
// meanwhile goes into the log only.
func (m *Machine) Behind() bool { return m.replay != nil }

// Replay applies what Pebble lacks of the log until it meets the last group that was
// applied, or ctx ends. It may run beside the goroutine that judges, which calls
// CatchUp when Replay has returned, for what came since and to hear of an error.
func (m *Machine) Replay(ctx context.Context) {
	if m.replay != nil {
		_ = m.replay.run(m, ctx.Err)
	}
}

// CatchUp applies all that Pebble still lacks of the log. The goroutine that judges
// calls it, between groups. A condition on a key can be judged only then. After an
// error that is not ctx's the state can no longer follow the log: the term must end.
func (m *Machine) CatchUp(ctx context.Context) error { return m.catchUp(ctx.Err) }

// catchUp ends early with the error of stop, and can be called again then.
func (m *Machine) catchUp(stop func() error) error {
	if m.replay == nil {
		return nil
	}
	if err := m.replay.run(m, stop); err != nil {
		return err
	}
	// Both memories have seen the same entries, and are the same.
	m.cursors.written()
	return m.forget()
}

// run applies the log as far as it may, and asks stop between batches whether it has
// to end early.
func (r *replay) run(m *Machine, stop func() error) error {
	for last := r.judged.Load(); r.failed == nil && m.Applied() < last; last = r.judged.Load() {
		from := m.Applied() + 1
		var ended error
		asked := func() error {
			ended = stop()
			return ended
		}
		err := m.follow(r.memory, r.reader, last, asked, func() error { return m.roomToReplay(asked) })
		if ended != nil {
			return ended
		}
		if err != nil {
			r.failed = fmt.Errorf("replay the log from %d to %d: %w", from, last, err)
		}
	}
	return r.failed
}

// forget ends the replay.
func (m *Machine) forget() error {
	if m.replay == nil {
		return nil
	}
	r := m.replay.reader
	m.replay = nil
	return r.Close()
}
