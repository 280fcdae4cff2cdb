package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// Verified says what was looked at and found whole.
type Verified struct {
	Keys       uint64 // of callers
	Bytes      uint64 // in keys and values
	Tables     int
	TableBytes int64
	Applied    uint64 // sequence number that the state is at
	First      uint64 // record of the log; 0: there is none
	Last       uint64
	Entries    uint64 // of the log
	Compared   uint64 // keys whose newest write is in the log, and that the state has just so
}

// VerifyState reads every block and every key of the state.
func VerifyState(ctx context.Context, v *apply.View, cmp *pebble.Comparer, out *Verified) (err error) {
	out.Applied = v.Seq()
	if out.Tables, out.TableBytes, err = v.CheckTables(ctx); err != nil {
		return err
	}
	it, err := NewIter(v, Bounds{}, cmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var last []byte
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.Value()
		if err != nil {
			return fmt.Errorf("value of key %.100q: %w", it.Key(), err)
		}
		if out.Keys > 0 && cmp.Compare(last, it.Key()) >= 0 {
			return fmt.Errorf("%w: key %.100q comes behind %.100q", apply.ErrCorrupt, it.Key(), last)
		}
		last = append(last[:0], it.Key()...)
		out.Keys++
		out.Bytes += uint64(len(it.Key()) + len(value))
		if out.Keys%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return it.Error()
}

// VerifyLog reads the whole log in dir up to limit (math.MaxUint64: to its end)
// and checks that it fits the state v: that it continues it without a gap, and
// that the state has what the log says of each key that it writes. durable is up
// to where the log is known to be on the disk.
//
// With a limit, which is that of v, somebody may have the log open and retention
// may remove what is to be read next: then it begins again where the log begins by
// then. If that is behind v there is nothing to compare.
func VerifyLog(ctx context.Context, v *apply.View, fs vfs.FS, dir string, limit, durable uint64, cmp *pebble.Comparer, out *Verified) error {
	for {
		out.First, out.Last, out.Entries, out.Compared = 0, 0, 0, 0
		err := verifyLog(ctx, v, fs, dir, limit, durable, cmp, out)
		var compacted *eventlog.CompactedError
		switch {
		case limit == math.MaxUint64 || !errors.As(err, &compacted):
			return err
		case compacted.First > v.Seq()+1:
			out.First, out.Last, out.Entries, out.Compared = 0, 0, 0, 0
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func verifyLog(ctx context.Context, v *apply.View, fs vfs.FS, dir string, limit, durable uint64, cmp *pebble.Comparer, out *Verified) (err error) {
	// The one from the state on fails if the log does not reach back to it.
	next, err := eventlog.OpenReader(fs, dir, v.Seq()+1)
	if err != nil {
		return fmt.Errorf("the log does not continue the state, which is at %d: %w", v.Seq(), err)
	}
	if err := next.Close(); err != nil {
		return err
	}
	r, err := eventlog.OpenReader(fs, dir, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if id := v.ID(); id != (eventlog.ID{}) && id != r.ID() {
		return fmt.Errorf("%w: the log is of database %s, the state of database %s", apply.ErrCorrupt, r.ID(), id)
	}
	c, err := newClaims(cmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.db.Close()) }()
	for {
		rec, ok, err := r.Next(limit)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if out.First == 0 {
			out.First = rec.Seq
		}
		out.Last = rec.Seq
		if rec.Kind != eventlog.KindEntry {
			continue
		}
		out.Entries++
		e, err := apply.DecodeEntry(rec.Payload)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", apply.ErrCorrupt, rec.Seq, err)
		}
		if rec.Seq <= v.Seq() {
			if err := c.learn(rec.Seq, &e); err != nil {
				return err
			}
		}
		if out.Entries%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if limit == math.MaxUint64 {
		limit = max(durable, v.Seq())
	}
	if last := r.Last(); last < limit { // of a log without a record it says where that begins
		// What is there of the next one looked torn. It was whole once, so it is damaged.
		if _, _, err := r.Next(limit); err != nil {
			return err
		}
		return fmt.Errorf("%w: the log ends at %d, but it had %d", apply.ErrCorrupt, last, limit)
	}
	return c.check(ctx, v, out)
}

// claims are what the log says that the state must have: for each key the newest
// write of it. It is kept in a Pebble in memory, which orders as the state does;
// of the values there is a hash only.
type claims struct {
	db      *pebble.DB
	cursors map[string]cursorClaim // by name
}

// cursorClaim is what the newest entry that moves a cursor says of it.
type cursorClaim struct {
	entry   uint64 // which
	seq     uint64
	dropped bool
}

// What a claim begins with; the sequence number and the hash of the value follow.
const (
	claimSet     = 's'
	claimDeleted = 'd'
	claimUnknown = 'u' // merged: what is there depends on what was there before
)

const claimHash = 16

func newClaims(cmp *pebble.Comparer) (*claims, error) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Comparer: cmp, DisableWAL: true, Logger: quietLogger{}})
	return &claims{db, make(map[string]cursorClaim)}, err
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)              {}
func (quietLogger) Errorf(string, ...any)             {}
func (quietLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (c *claims) learn(seq uint64, e *apply.Entry) error {
	if e.Cursor { // the key that it names is never in the state
		to, dropped := e.CursorMove()
		c.cursors[to.Name] = cursorClaim{entry: seq, seq: to.Seq, dropped: dropped}
		return nil
	}
	b := c.db.NewBatch()
	defer b.Close()
	ops := apply.ReadOps(e.Repr)
	for op, ok := ops.Next(); ok; op, ok = ops.Next() {
		claim := binary.LittleEndian.AppendUint64([]byte{claimDeleted}, seq)
		switch op.Kind {
		case pebble.InternalKeyKindSet:
			claim[0] = claimSet
			sum := sha256.Sum256(op.Value)
			claim = append(claim, sum[:claimHash]...)
		case pebble.InternalKeyKindMerge:
			claim[0] = claimUnknown
		case pebble.InternalKeyKindRangeDelete:
			if err := b.DeleteRange(op.Key, op.Value, nil); err != nil {
				return err
			}
			continue
		}
		if err := b.Set(op.Key, claim, nil); err != nil {
			return err
		}
	}
	return errors.Join(ops.Err(), c.db.Apply(b, pebble.NoSync))
}

// checkCursors compares what the log says of cursors with the state.
func (c *claims) checkCursors(v *apply.View) error {
	all, err := v.Cursors()
	if err != nil {
		return err
	}
	for name, claim := range c.cursors {
		i := slices.IndexFunc(all, func(c apply.Cursor) bool { return c.Name == name })
		if claim.dropped != (i < 0) || i >= 0 && all[i].Seq != claim.seq {
			return fmt.Errorf("%w: the state at %d does not have cursor %q as entry %d of the log left it",
				apply.ErrCorrupt, v.Seq(), name, claim.entry)
		}
	}
	return nil
}

// check compares the claims with the state.
func (c *claims) check(ctx context.Context, v *apply.View, out *Verified) (err error) {
	if err := c.checkCursors(v); err != nil {
		return err
	}
	it, err := c.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var value []byte
	for ok := it.First(); ok; ok = it.Next() {
		claim := it.Value()
		if claim[0] == claimUnknown {
			continue
		}
		value, err = v.Get(value[:0], it.Key())
		absent := errors.Is(err, pebble.ErrNotFound)
		if err != nil && !absent {
			return err
		}
		sum := sha256.Sum256(value)
		fits := absent
		if claim[0] == claimSet {
			fits = !absent && string(sum[:claimHash]) == string(claim[9:])
		}
		if !fits {
			return fmt.Errorf("%w: the state at %d does not have key %.100q as entry %d of the log left it",
				apply.ErrCorrupt, v.Seq(), it.Key(), binary.LittleEndian.Uint64(claim[1:]))
		}
		out.Compared++
		if out.Compared%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return it.Error()
}
