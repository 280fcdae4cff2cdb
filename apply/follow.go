package apply

import (
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// followMemTable is the least size of a follower's memtables, in bytes. What a
// follower flushes nobody needs: the leader has written it to a table already.
// Pebble takes the memory as it is used.
const followMemTable = 16 << 20

// OpenFollower opens Pebble in dir, which holds a checkpoint of a leader's, as a
// machine that applies log records with Follow and never judges a command. It
// lives no longer than the process: nothing in dir need survive a crash.
//
// It does not compact, so it must not follow without end: whoever owns it takes
// a new checkpoint now and then, which has what the leader compacted. The user's
// logger and event listener hear nothing of it.
//
// The errors are those of Open.
func OpenFollower(dir string, o *pebble.Options, log *slog.Logger) (*Machine, error) {
	c := o.Clone()
	if c == nil {
		c = &pebble.Options{}
	}
	c.Logger, c.LoggerAndTracer, c.EventListener = nil, nil, nil
	c.ErrorIfExists, c.ErrorIfNotExists, c.ReadOnly = false, true, false
	c.MemTableSize = max(c.MemTableSize, followMemTable)
	c.DisableAutomaticCompactions = true
	// Nothing would ever end a stall for tables that wait for a compaction.
	c.L0StopWritesThreshold = math.MaxInt32
	// The write-ahead logs of the leader's Pebble are not this one's, and hold
	// nothing: what was not flushed comes from the event log.
	c.WALDir, c.WALFailover, c.WALRecoveryDirs = "", nil, nil
	c.Unsafe.AllowMissingWALDirs = true
	if c.FS == nil {
		c.FS = vfs.Default
	}
	c.FS = unsyncedFS{c.FS}
	return Open(dir, c, nil, log)
}

// Join checks that the log of database id continues the state. A checkpoint that was made before
// the leader's Pebble flushed for the first time knows of no log yet; it is what
// the database was before its first entry, and becomes part of it here.
func (m *Machine) Join(id eventlog.ID) error {
	switch m.id {
	case id:
		return nil
	case eventlog.ID{}:
		return m.adopt(id, &m.memory)
	}
	return fmt.Errorf("%w: the log is of database %s, Pebble's files are of database %s", ErrCorrupt, id, m.id)
}

// Follow applies what r has up to limit, which must be committed; r stands
// behind what is applied. It may wait for a flush. After an error the
// machine can be read but no longer follows.
//
// The error is ErrCorrupt when the log ends before limit, what the reader
// returned, what Full did when Pebble cannot flush for want of space, or what else a
// flush failed with that there is no room without.
func (m *Machine) Follow(r *eventlog.Reader, limit uint64) error {
	_, err := m.follow(&m.memory, r, limit, m.Full, func() error { return m.store.makeRoom(m.store.room.limit, m.store.unflushable) })
	return err
}

// follow asks stop, between batches, whether it has to end early. mem is the
// bookkeeping that goes with what is applied. room waits for room in memory. It returns
// how many bytes the entries have that were applied.
func (m *Machine) follow(mem *memory, r *eventlog.Reader, limit uint64, stop, room func() error) (bytes int, err error) {
	a := applier{m: m, memory: mem}
	for m.Applied() < limit {
		if a.batch == nil { // r and mem stand where the state does, if this is the end
			if err := room(); err != nil {
				return bytes, err
			}
		}
		rec, ok, err := r.Next(limit)
		if err == nil && !ok {
			err = endsEarly(max(a.seq, m.Applied()))
		}
		if err == nil {
			err = a.add(rec)
		}
		if err != nil {
			return bytes, errors.Join(err, a.discard())
		}
		if a.size >= replayBatch || rec.Seq == limit {
			size := a.size
			if err := a.commit(); err != nil {
				return bytes, err
			}
			bytes += size
			if err := stop(); err != nil && m.Applied() < limit {
				return bytes, err
			}
		}
	}
	return bytes, nil
}

func endsEarly(seq uint64) error {
	return fmt.Errorf("%w: the log ends early, after %d", ErrCorrupt, seq)
}

// discard drops what was added and not committed.
func (a *applier) discard() error {
	if a.batch == nil {
		return nil
	}
	b := a.batch
	a.batch = nil
	return b.Close()
}
