package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

var keyRestored = []byte(ReservedPrefix + "restored\x00")

// Lineage says which state a restored one is: that of another database at one of
// its sequence numbers.
type Lineage struct {
	Database eventlog.ID
	Seq      uint64
}

// restoredLen: database id [16], sequence number u64.
const restoredLen = 16 + 8

// restoreMemTable is the least size of memtables while a state is restored: it
// comes in order, so each becomes tables that need no compaction.
const restoreMemTable = 64 << 20

// Restorer writes the state of a database that nobody has open, from a backup.
// One goroutine uses it. After any error it is good for Close only.
type Restorer struct {
	m     *Machine
	from  Lineage
	batch *pebble.Batch
	last  []byte // key of the last Set
	any   bool   // there was one
	size  int    // of the entries since the last mark
	wipes bool   // a DeleteRange is among them
}

// NewRestorer makes a state in the empty folder dir, for a new database with the
// given id, from keys and cursors of the database in from. It is there with Finish.
func NewRestorer(dir string, o *pebble.Options, log *slog.Logger, id eventlog.ID, from Lineage, when time.Time) (*Restorer, error) {
	r, err := openRestorer(dir, o, log, true)
	if err != nil {
		return nil, err
	}
	r.m.id, r.from, r.m.nanos = id, from, when.UnixNano()
	return r, nil
}

// OpenRestorer opens a state that was restored in dir, to add entries to it. The
// error is ErrNotRestored when it is none, or was written to since.
func OpenRestorer(dir string, o *pebble.Options, log *slog.Logger) (*Restorer, error) {
	r, err := openRestorer(dir, o, log, false)
	if err != nil {
		return nil, err
	}
	v, err := r.m.reserved(keyRestored)
	if err == nil {
		err = r.load(v)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// ErrNotRestored: the state was not restored from a backup, or was opened and
// written to since, so an incremental backup does not continue it.
var ErrNotRestored = errors.New("apply: not a state that was restored and not opened since")

func (r *Restorer) load(v []byte) error {
	if len(v) != restoredLen {
		return ErrNotRestored
	}
	r.from = Lineage{eventlog.ID(v[:16]), binary.LittleEndian.Uint64(v[16:])}
	if at := r.m.Applied(); at != r.from.Seq {
		return fmt.Errorf("%w: restored at %d, it is at %d now", ErrNotRestored, r.from.Seq, at)
	}
	return nil
}

func openRestorer(dir string, o *pebble.Options, log *slog.Logger, fresh bool) (*Restorer, error) {
	c := o.Clone()
	if c == nil {
		c = &pebble.Options{}
	}
	c.ErrorIfExists, c.ErrorIfNotExists, c.ReadOnly = fresh, !fresh, false
	c.MemTableSize = max(c.MemTableSize, restoreMemTable)
	m, err := Open(dir, c, nil, log)
	if err != nil {
		return nil, err
	}
	m.store.fs.waits.Store(false) // nobody is served meanwhile: a full disk is a failure
	return &Restorer{m: m}, nil
}

// Lineage returns what the state was restored from so far.
func (r *Restorer) Lineage() Lineage { return r.from }

// Set adds a pair; keys come in ascending order. The error is ErrCorrupt for one
// that is out of order or can be no key of a caller's.
func (r *Restorer) Set(key, value []byte) error {
	if IsReserved(key) {
		return fmt.Errorf("%w: reserved key %q", ErrCorrupt, key)
	}
	if err := r.m.cmp.ValidateKey.Validate(key); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if r.any && r.m.cmp.Compare(r.last, key) >= 0 {
		return fmt.Errorf("%w: key %.100q comes behind %.100q: written with another comparer?", ErrCorrupt, key, r.last)
	}
	r.last, r.any = append(r.last[:0], key...), true
	if err := r.fresh().Set(key, value, nil); err != nil {
		return err
	}
	if r.batch.Len() < replayBatch {
		return nil
	}
	b := r.batch
	r.batch = nil
	return r.commit(b)
}

// Cursor adds a named cursor. The error is ErrCorrupt for one that cannot be: it
// stands behind the state, is there already or has no proper name, or there are
// MaxCursors.
func (r *Restorer) Cursor(c Cursor) error {
	_, there := r.m.cursors.get(c.Name)
	switch {
	case c.Name == "" || len(c.Name) > MaxCursorName || there || c.Seq > r.from.Seq:
		return fmt.Errorf("%w: cursor %.300q at %d", ErrCorrupt, c.Name, c.Seq)
	case len(r.m.cursors.slots) == MaxCursors:
		return fmt.Errorf("%w: more than %d cursors", ErrCorrupt, MaxCursors)
	}
	r.m.cursors.move(cursorMove{Cursor: c})
	return nil
}

// Entry applies a log entry of the database that the state was restored from.
func (r *Restorer) Entry(seq uint64, payload []byte) error {
	if seq <= r.from.Seq {
		return fmt.Errorf("%w: entry %d behind %d", ErrCorrupt, seq, r.from.Seq)
	}
	e, err := DecodeEntry(payload)
	if err != nil {
		return fmt.Errorf("entry %d: %w", seq, err)
	}
	if e.Cursor {
		move, _ := parseCursor(e.Repr) // DecodeEntry has checked it
		r.m.cursors.move(move)
	} else if err := r.effects(&e); err != nil {
		return fmt.Errorf("entry %d: %w", seq, err)
	}
	r.from.Seq, r.m.nanos = seq, e.Time.UnixNano()
	if r.size += len(payload); r.size < replayBatch {
		return nil
	}
	return r.mark()
}

// effects adds those of an entry on keys.
func (r *Restorer) effects(e *Entry) error {
	if err := r.m.checkKeys(&Command{Repr: e.Repr}); err != nil {
		return err
	}
	var b pebble.Batch
	if err := b.SetRepr(effects(e.Repr, e.shape)); err != nil {
		return err
	}
	r.wipes = r.wipes || e.shape.rangeDeletes
	return r.fresh().Apply(&b, nil)
}

func (r *Restorer) fresh() *pebble.Batch {
	if r.batch == nil {
		r.batch = r.m.store.db.NewBatch()
	}
	return r.batch
}

// mark commits what was added together with where the state is now. A crash
// leaves the state at some such mark: it is whole then, and can be gone on with.
func (r *Restorer) mark() error {
	b := r.fresh()
	r.batch, r.size = nil, 0
	seq := binary.LittleEndian.AppendUint64(nil, r.from.Seq)
	// A handle that wrote to the other database is told that it is unknown what
	// became of a write that it sends again.
	r.m.sessions.floor = r.from.Seq
	err := errors.Join(
		r.m.cursors.book(b, r.wipes), // a DeleteRange may have covered those that did not move
		b.Set(keyID, idValue(r.m.id), nil),
		b.Set(keyApplied, r.m.appliedValue(r.from.Seq), nil),
		b.Set(keyClean, seq, nil),
		b.Set(keyRestored, append(r.from.Database[:], seq...), nil),
	)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	r.wipes = false
	return r.commit(b)
}

func (r *Restorer) commit(b *pebble.Batch) error {
	s := r.m.store
	err := r.m.Full()
	if err == nil {
		err = s.makeRoom(s.room.limit, s.unflushable)
	}
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return s.call(func() error { return errors.Join(s.apply(b), b.Close()) }) // b is a broken Pebble's if that is left behind
}

// Finish makes the state durable: it is that of from.Database at seq.
func (r *Restorer) Finish(seq uint64) error {
	r.from.Seq = seq
	if err := r.mark(); err != nil {
		return err
	}
	return r.m.Flush(nil)
}

// Close closes Pebble. What was not finished is left as it is.
func (r *Restorer) Close() error {
	var err error
	if r.batch != nil {
		err = r.batch.Close()
	}
	return errors.Join(err, r.m.Close(false))
}
