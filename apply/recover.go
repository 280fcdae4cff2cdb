package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// replayBatch is how many bytes of log are applied in one Pebble batch during
// replay: large enough that the bookkeeping does not count, and small, as a
// process that has just become the leader gets no memory that is warm.
const replayBatch = 32 << 10

func idValue(id eventlog.ID) []byte {
	v := binary.LittleEndian.AppendUint32(nil, stateVersion)
	return append(v, id[:]...)
}

// Recover joins the state with its log, which was just opened: it checks that the two
// belong together and reads what the state lacks, which is then applied by Replay or
// CatchUp. From here on no table of Pebble's is written before the log is durable.
//
// The error is ErrCorrupt when the log lacks entries that the state does not
// have either, or has fewer than the state has applied.
func (m *Machine) Recover(log *eventlog.Log) error {
	m.syncsBefore(log)
	applied := m.Applied()
	if err := m.match(log, m.id, applied, log.Last(), &m.memory); err != nil {
		return err
	}
	m.judged.Store(log.Last())
	if applied == log.Last() {
		return nil
	}
	r, err := openReader(log, applied)
	if err != nil {
		return err
	}
	behind := m.memory.clone()
	if err := m.memory.follow(r, applied, log.Last()); err != nil {
		return errors.Join(fmt.Errorf("read the log from %d to %d: %w", applied+1, log.Last(), err), r.Close())
	}
	if err := r.Rewind(applied + 1); err != nil {
		return errors.Join(err, r.Close())
	}
	m.replay = &replay{reader: r, memory: behind}
	return nil
}

// syncsBefore has Pebble's tables wait for the log to be durable.
func (m *Machine) syncsBefore(log *eventlog.Log) {
	sync := log.Sync
	m.store.fs.syncLog.Store(&sync)
}

// match checks that the state, with id, applied and mem as loaded, belongs to the log, which
// ended at last when it was opened. A database that was made by plain Pebble becomes ours.
func (m *Machine) match(log *eventlog.Log, id eventlog.ID, applied, last uint64, mem *memory) error {
	switch {
	case id == eventlog.ID{}:
		if log.First() > 1 && last > 0 {
			return fmt.Errorf("%w: the log starts at %d, but Pebble knows nothing of a log; Pebble's files were replaced or lost",
				ErrCorrupt, log.First())
		}
		return m.adopt(log.ID(), mem)
	case id != log.ID():
		return fmt.Errorf("%w: the log is of database %s, Pebble's files are of database %s", ErrCorrupt, log.ID(), id)
	case applied > last:
		return fmt.Errorf("%w: the state has applied %d, but the log ends at %d", ErrCorrupt, applied, last)
	}
	return nil
}

// openReader opens the log behind applied, up to where the state is.
func openReader(log *eventlog.Log, applied uint64) (*eventlog.Reader, error) {
	// First may be above the next number and nothing be missing: a term record
	// that leaves a gap before it can begin a segment. The reader knows.
	r, err := log.OpenReader(applied + 1)
	if errors.Is(err, eventlog.ErrCompacted) {
		err = fmt.Errorf("%w: the state ends at %d, but the log starts at %d: %w", ErrCorrupt, applied, log.First(), err)
	}
	return r, err
}

// Clean tells whether the last Close left a state that needs no log. Only then
// may a log that is missing as a whole be begun anew.
func (m *Machine) Clean() (bool, error) {
	v, err := m.reserved(keyClean)
	if err != nil || len(v) != 8 {
		return m.Applied() == 0, err // nothing was ever applied, so there is no log to need
	}
	return binary.LittleEndian.Uint64(v) == m.Applied(), nil
}

// adopt makes a plain Pebble database ours. mem is what it has of a memory, which is none.
func (m *Machine) adopt(id eventlog.ID, mem *memory) error {
	if m.cmp.Name == pebble.DefaultComparer.Name {
		if err := m.checkUnreserved(); err != nil {
			return err
		}
	}
	if m.id != id { // else it is no news, and others may be reading it
		m.id = id
	}
	b := m.store.db.NewBatch()
	if err := b.Set(keyID, idValue(id), nil); err != nil {
		return errors.Join(err, b.Close())
	}
	return m.commit(mem, b, nil, false, 0)
}

// checkUnreserved refuses a database whose own keys are where ours would go.
func (m *Machine) checkUnreserved() (err error) {
	it, err := m.store.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.SeekGE(reservedPrefix) && bytes.HasPrefix(it.Key(), reservedPrefix) {
		return fmt.Errorf("%w: the database already has key %q; keys that begin with %q cannot be used",
			ErrReservedKey, it.Key(), ReservedPrefix)
	}
	return it.Error()
}

// ApplyTerm applies the record that began a term, unless Replay comes to it.
func (m *Machine) ApplyTerm(seq uint64) error {
	if m.replay != nil {
		m.advance(&m.judged, seq)
		return nil
	}
	m.judged.Store(seq)
	return m.commit(&m.memory, m.store.db.NewBatch(), nil, false, seq)
}

// applier applies log records, many to a Pebble batch.
type applier struct {
	m       *Machine
	memory  *memory
	batch   *pebble.Batch
	records []record
	wipes   bool
	seq     uint64
	size    int
}

func (a *applier) add(rec eventlog.Record) error {
	if a.batch == nil {
		a.batch = a.m.store.db.NewBatchWithSize(replayBatch + replayBatch/4) // and what the last entry goes beyond
	}
	a.seq = rec.Seq
	if rec.Kind != eventlog.KindEntry {
		return nil
	}
	e, err := DecodeEntry(rec.Payload)
	if err != nil {
		return fmt.Errorf("entry %d: %w", rec.Seq, err)
	}
	if !e.Cursor {
		var b pebble.Batch
		if err := b.SetRepr(effects(e.Repr, e.shape)); err != nil {
			return fmt.Errorf("entry %d: %w", rec.Seq, err)
		}
		if mutant.ReplayLosesOps {
			dropLast(&b)
		}
		if err := a.batch.Apply(&b, nil); err != nil {
			return fmt.Errorf("entry %d: %w", rec.Seq, err)
		}
		a.wipes = a.wipes || e.shape.rangeDeletes
	}
	a.memory.learn(&e, rec.Seq)
	a.records = append(a.records, record{e.Origin, e.Number, e.Low})
	a.size += len(rec.Payload)
	return nil
}

func (a *applier) commit() error {
	b := a.batch
	a.batch = nil
	err := a.m.commit(a.memory, b, a.records, a.wipes, a.seq)
	a.records, a.wipes, a.size = a.records[:0], false, 0
	return err
}
