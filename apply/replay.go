package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// replay is what Pebble lacks of the log when a term begins. Commands need not
// wait for it: who wrote what is learned from the log in a fraction of the time,
// and answers rest on the log. So it is applied beside the first groups, which are
// read back from the log like the rest.
type replay struct {
	unopened *eventlog.Log // not nil: Pebble has to be opened first, and then this log to be read
	last     uint64        // where that ended before the term
	reader   *eventlog.Reader
	memory   *memory // as Pebble has it; that of the Machine is ahead, at the end of the log
	failed   error   // for good: memory may have entries then that Pebble does not
	bytes    int     // of the entries that were applied
}

// Resume returns a machine that judges commands before Pebble is open in dir. What it
// knows of who wrote what is memory, which Memory has returned at some point of log's past,
// and what log has behind that. The machine is Behind: Replay, or CatchUp, opens Pebble first, and
// they, or Close, fail as Open and Recover do. The arguments are theirs too.
//
// An error says that memory and log cannot be used like that. Nothing was changed then,
// and Open may do.
func Resume(dir string, o *pebble.Options, lock *pebble.Lock, logger *slog.Logger, log *eventlog.Log, memory []byte) (*Machine, error) {
	mem, id, seq, err := decodeMemory(memory)
	if err != nil {
		return nil, err
	}
	if id != log.ID() || seq > log.Last() {
		return nil, fmt.Errorf("%w: it is of database %s up to %d; the log, of %s, ends at %d", errNoMemory, id, seq, log.ID(), log.Last())
	}
	r, err := log.OpenReader(seq + 1)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(mem.follow(r, seq, log.Last()), r.Close()); err != nil {
		return nil, fmt.Errorf("read the log from %d to %d: %w", seq+1, log.Last(), err)
	}
	m, err := newMachine(dir, o, lock, logger)
	if err != nil {
		return nil, err
	}
	m.syncsBefore(log)
	m.sessions, m.cursors.slots, m.nanos = mem.sessions, mem.cursors.slots, mem.nanos
	m.id = log.ID()
	m.replay = &replay{unopened: log, last: log.Last()}
	m.judged.Store(log.Last())
	return m, nil
}

// Memory appends to dst what Resume needs: who wrote what up to seq, the last entry of
// the log, which was judged and applied. The goroutine that judges calls it, between groups. It may
// be given to Resume once the log is durable up to seq, and for as long as the log goes
// on from there. It has some hundred bytes for each of the origins that are remembered.
// The place at is for MemoryPosition.
func (m *Machine) Memory(dst []byte, seq uint64, at eventlog.Position) []byte {
	return m.memory.encode(dst, m.id, seq, at)
}

// Behind tells whether Pebble lacks part of the log. What is judged and applied
// meanwhile goes into the log only.
func (m *Machine) Behind() bool { return m.replay != nil }

// Replayed returns, after CatchUp, how many bytes the entries had that Pebble lacked.
func (m *Machine) Replayed() int { return m.replayed }

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

// open opens Pebble, and the log where it ends.
func (r *replay) open(m *Machine) error {
	log := r.unopened
	r.unopened = nil
	if err := m.store.open(); err != nil {
		return err
	}
	r.memory = &memory{}
	id, applied, err := m.load(r.memory)
	if err != nil {
		return err
	}
	if err := m.match(log, id, applied, r.last, r.memory); err != nil {
		return err
	}
	if r.reader, err = openReader(log, applied); err != nil {
		return err
	}
	m.applied.Store(applied) // not before: to those who wait it says what they may read
	close(m.ready)
	return nil
}

// run applies the log as far as it may, and asks stop between batches whether it has
// to end early.
func (r *replay) run(m *Machine, stop func() error) error {
	if r.unopened != nil {
		if err := stop(); err != nil {
			return err
		}
		r.failed = r.open(m)
	}
	for last := m.judged.Load(); r.failed == nil && m.Applied() < last; last = m.judged.Load() {
		from := m.Applied() + 1
		var ended error
		asked := func() error {
			ended = stop()
			return ended
		}
		n, err := m.follow(r.memory, r.reader, last, asked, func() error { return m.roomToReplay(asked) })
		r.bytes += n
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
	r := m.replay
	m.replayed, m.replay = r.bytes, nil
	if r.reader == nil {
		return nil // Pebble was never open
	}
	return r.reader.Close()
}
