package party

import (
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Event is one committed batch: what one call of Apply, Set, Delete and so on
// wrote. With bounds it has only the operations that touch them, in their order.
// It belongs to the caller.
type Event struct {
	Seq  uint64    // of its entry in the log, as Apply returned it
	Time time.Time // by the leader's clock; never before that of an earlier event
	Ops  []Op      // at least one
}

// Op is one operation of a batch, as its writer made it.
type Op struct {
	Kind  OpKind
	Key   []byte
	Value []byte // OpSet: the value. OpMerge: the operand. Else nil
	End   []byte // OpDeleteRange: the keys from Key up to, not including, End. Else nil
}

// OpKind says what an operation does.
type OpKind uint8

// The operations that a batch may hold. OpSingleDelete has the effect of
// OpDelete.
const (
	OpSet OpKind = iota + 1
	OpDelete
	OpDeleteRange
	OpMerge
	OpSingleDelete
)

// String returns the name of the method of a batch that makes such an operation.
func (k OpKind) String() string {
	switch k {
	case OpSet:
		return "Set"
	case OpDelete:
		return "Delete"
	case OpDeleteRange:
		return "DeleteRange"
	case OpMerge:
		return "Merge"
	case OpSingleDelete:
		return "SingleDelete"
	}
	return "unknown"
}

func opKind(k pebble.InternalKeyKind) OpKind {
	switch k {
	case pebble.InternalKeyKindSet:
		return OpSet
	case pebble.InternalKeyKindDelete:
		return OpDelete
	case pebble.InternalKeyKindRangeDelete:
		return OpDeleteRange
	case pebble.InternalKeyKindMerge:
		return OpMerge
	}
	return OpSingleDelete // nothing else passes apply.Ops
}

// bounds are a range of keys. An empty bound is none.
type bounds struct{ lower, upper []byte }

func (b *bounds) unbounded() bool { return len(b.lower) == 0 && len(b.upper) == 0 }

// has tells whether the range holds key.
func (b *bounds) has(compare pebble.Compare, key []byte) bool {
	return (len(b.lower) == 0 || compare(key, b.lower) >= 0) && (len(b.upper) == 0 || compare(key, b.upper) < 0)
}

// clip cuts what op touches down to the range; ok is false if nothing is left.
func (b *bounds) clip(compare pebble.Compare, op *apply.Op) (ok bool) {
	if b.unbounded() {
		return true
	}
	if op.Kind != pebble.InternalKeyKindRangeDelete {
		return b.has(compare, op.Key)
	}
	if len(b.lower) > 0 && compare(op.Key, b.lower) < 0 {
		op.Key = b.lower
	}
	if len(b.upper) > 0 && compare(op.Value, b.upper) > 0 {
		op.Value = b.upper
	}
	return compare(op.Key, op.Value) < 0
}

// newEvent returns the event of an entry as bounds show it; ok is false if they
// show nothing. Nothing of it points into e.
func newEvent(seq uint64, e *apply.Entry, b *bounds, compare pebble.Compare) (ev Event, ok bool) {
	n, size := 0, 0
	ops := apply.ReadOps(e.Repr)
	for op, more := ops.Next(); more; op, more = ops.Next() {
		if b.clip(compare, &op) {
			n++
			size += len(op.Key) + len(op.Value)
		}
	}
	if n == 0 {
		return Event{}, false
	}
	ev = Event{Seq: seq, Time: e.Time, Ops: make([]Op, 0, n)}
	buf := make([]byte, 0, size) // one allocation for all keys and values
	own := func(p []byte) []byte {
		buf = append(buf, p...)
		return buf[len(buf)-len(p) : len(buf) : len(buf)]
	}
	ops = apply.ReadOps(e.Repr)
	for op, more := ops.Next(); more; op, more = ops.Next() {
		if !b.clip(compare, &op) {
			continue
		}
		o := Op{Kind: opKind(op.Kind), Key: own(op.Key)}
		switch o.Kind {
		case OpSet, OpMerge:
			o.Value = own(op.Value)
		case OpDeleteRange:
			o.End = own(op.Value)
		}
		ev.Ops = append(ev.Ops, o)
	}
	return ev, true
}

var errEmptyRange = errors.New("LowerBound is not below UpperBound: no key is in the range")

// check refuses bounds that the comparer cannot work with, and those that hold
// nothing.
func (b *bounds) check(c *pebble.Comparer) error {
	for _, key := range [][]byte{b.lower, b.upper} {
		if len(key) == 0 || c.ValidateKey == nil {
			continue
		}
		if err := c.ValidateKey(key); err != nil {
			return err
		}
	}
	if len(b.lower) > 0 && len(b.upper) > 0 && c.Compare(b.lower, b.upper) >= 0 {
		return errEmptyRange
	}
	return nil
}
