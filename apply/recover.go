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
// backlog is how many bytes the entries have that the state lacks.
//
// The error is ErrCorrupt when the log lacks entries that the state does not
// have either, or has fewer than the state has applied.
func (m *Machine) Recover(log *eventlog.Log) (backlog int, err error) {
	sync := log.Sync
	m.store.fs.syncLog.Store(&sync)
	fresh := m.id == eventlog.ID{}
	switch applied := m.Applied(); {
	case fresh:
		if log.First() > 1 && log.Last() > 0 {
			return 0, fmt.Errorf("%w: the log starts at %d, but Pebble knows nothing of a log; Pebble's files were replaced or lost",
				ErrCorrupt, log.First())
		}
		if err := m.adopt(log.ID()); err != nil {
			return 0, err
		}
	case m.id != log.ID():
		return 0, fmt.Errorf("%w: the log is of database %s, Pebble's files are of database %s", ErrCorrupt, log.ID(), m.id)
	case applied > log.Last():
		return 0, fmt.Errorf("%w: the state has applied %d, but the log ends at %d", ErrCorrupt, applied, log.Last())
	}
	if m.Applied() == log.Last() {
		return 0, nil
	}
	if backlog, err = m.learn(log); err != nil {
		return 0, fmt.Errorf("read the log from %d to %d: %w", m.Applied()+1, log.Last(), err)
	}
	return backlog, nil
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

// adopt makes a plain Pebble database ours.
func (m *Machine) adopt(id eventlog.ID) error {
	if m.cmp.Name == pebble.DefaultComparer.Name {
		if err := m.checkUnreserved(); err != nil {
			return err
		}
	}
	m.id = id
	b := m.store.db.NewBatch()
	if err := b.Set(keyID, idValue(id), nil); err != nil {
		return errors.Join(err, b.Close())
	}
	return m.commit(&m.memory, b, nil, false, 0)
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
		m.replay.judged.Store(seq)
		return nil
	}
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
