package apply

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// MaxBatch is the longest batch representation a command may carry, in bytes:
// 256 MiB. It bounds the memory one write takes in the leader to a small
// multiple of this.
const MaxBatch = 256 << 20

// reprHeader is the length of Pebble's batch header: sequence number u64,
// operation count u32.
const reprHeader = 12

// The operations that a batch may hold. The values are Pebble's, which fixes
// them in its own write-ahead log format.
const (
	kindDelete       = byte(pebble.InternalKeyKindDelete)
	kindSet          = byte(pebble.InternalKeyKindSet)
	kindMerge        = byte(pebble.InternalKeyKindMerge)
	kindSingleDelete = byte(pebble.InternalKeyKindSingleDelete)
	kindRangeDelete  = byte(pebble.InternalKeyKindRangeDelete)
)

// Op is one operation of a batch. The slices point into the batch.
type Op struct {
	Kind  pebble.InternalKeyKind
	Key   []byte
	Value []byte // Set, Merge: the value. DeleteRange: the end key
}

// Ops walks a batch representation. Pebble's own batchrepr.Reader reads past
// the end of a truncated batch, and what we walk may come from a socket.
type Ops struct {
	rest []byte
	err  error
}

// ReadOps returns a reader of the operations in repr.
func ReadOps(repr []byte) Ops {
	if len(repr) < reprHeader {
		return Ops{err: fmt.Errorf("%w: %d bytes, the header alone has %d", ErrInvalidBatch, len(repr), reprHeader)}
	}
	return Ops{rest: repr[reprHeader:]}
}

// Next returns the next operation; ok is false at the end and after an error.
func (o *Ops) Next() (op Op, ok bool) {
	if o.err != nil || len(o.rest) == 0 {
		return Op{}, false
	}
	kind := o.rest[0]
	o.rest = o.rest[1:]
	switch kind {
	case kindSet, kindMerge, kindRangeDelete, kindDelete, kindSingleDelete:
	default:
		o.err = fmt.Errorf("%w: %s; a batch may hold Set, Delete, SingleDelete, DeleteRange and Merge",
			ErrUnsupported, kindName(kind))
		return Op{}, false
	}
	op.Kind = pebble.InternalKeyKind(kind)
	if op.Key, ok = o.str(); !ok {
		return Op{}, false
	}
	if kind == kindSet || kind == kindMerge || kind == kindRangeDelete {
		if op.Value, ok = o.str(); !ok {
			return Op{}, false
		}
	}
	return op, true
}

// Err returns what stopped Next early, or nil at a proper end.
func (o *Ops) Err() error { return o.err }

func (o *Ops) str() ([]byte, bool) {
	n, w := binary.Uvarint(o.rest)
	// Pebble reads lengths as at most five bytes of varint; a longer form of
	// the same number would be read differently there.
	if w <= 0 || w > 5 || n > uint64(len(o.rest)-w) {
		o.err = fmt.Errorf("%w: truncated", ErrInvalidBatch)
		return nil, false
	}
	s := o.rest[w : w+int(n)]
	o.rest = o.rest[w+int(n):]
	return s, true
}

// kindName names an operation for an error text; Pebble's String indexes a
// table and would panic for an unknown one.
func kindName(kind byte) string {
	if pebble.InternalKeyKind(kind) > pebble.InternalKeyKindMax {
		return fmt.Sprintf("operation %#x", kind)
	}
	return pebble.InternalKeyKind(kind).String()
}

// CheckRepr validates a batch representation without looking at any state: its
// length, its form, the kinds of its operations, and that it writes no reserved
// key. It returns the number of operations.
func CheckRepr(repr []byte) (count int, err error) {
	s, err := scanRepr(repr)
	return s.count, err
}

// shape is what one walk over a batch finds out.
type shape struct {
	count         int
	rangeDeletes  bool // has any
	singleDeletes bool
}

func scanRepr(repr []byte) (s shape, err error) {
	if len(repr) > MaxBatch {
		return s, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(repr), MaxBatch)
	}
	ops := ReadOps(repr)
	for op, ok := ops.Next(); ok; op, ok = ops.Next() {
		s.count++
		switch op.Kind {
		case pebble.InternalKeyKindRangeDelete:
			// Allowed to cross the reserved keys: applying it leaves them.
			s.rangeDeletes = true
			continue
		case pebble.InternalKeyKindSingleDelete:
			s.singleDeletes = true
		}
		if IsReserved(op.Key) {
			return s, fmt.Errorf("%w: %q", ErrReservedKey, op.Key)
		}
	}
	if err := ops.Err(); err != nil {
		return s, err
	}
	if n := binary.LittleEndian.Uint32(repr[8:reprHeader]); n != uint32(s.count) {
		return s, fmt.Errorf("%w: header counts %d operations, there are %d", ErrInvalidBatch, n, s.count)
	}
	return s, nil
}

// effects returns the batch that is applied for repr, which has shape s: the
// same with Delete for SingleDelete. What Pebble does with a SingleDelete of a
// key that was written more than once depends on when it flushes and compacts,
// and the same log would not give the same state. Delete is right whenever
// SingleDelete is. The log keeps what the caller wrote.
func effects(repr []byte, s shape) []byte {
	if !s.singleDeletes {
		return repr
	}
	copied := bytes.Clone(repr)
	ops := ReadOps(repr)
	for {
		at := len(repr) - len(ops.rest)
		op, ok := ops.Next()
		if !ok {
			return copied
		}
		if op.Kind == pebble.InternalKeyKindSingleDelete {
			copied[at] = kindDelete
		}
	}
}

// checkKeys refuses keys that the comparer cannot work with. One in the log
// would break every leader, as comparers may panic.
func (m *Machine) checkKeys(c *Command) error {
	if m.cmp.ValidateKey == nil {
		return nil
	}
	if c.Cond != nil {
		if err := m.cmp.ValidateKey(c.Cond.Key); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidCommand, err)
		}
	}
	ops := ReadOps(c.Repr)
	for op, ok := ops.Next(); ok; op, ok = ops.Next() {
		err := m.cmp.ValidateKey(op.Key)
		if err == nil && op.Kind == pebble.InternalKeyKindRangeDelete {
			err = m.cmp.ValidateKey(op.Value)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidBatch, err)
		}
	}
	return nil
}

// ReservedPrefix begins every key of ours. It sorts last under Pebble's default
// comparer.
const ReservedPrefix = "\xff\xffpebbleparty\x00"

var reservedPrefix = []byte(ReservedPrefix)

// IsReserved tells whether key belongs to the bookkeeping.
func IsReserved(key []byte) bool { return bytes.HasPrefix(key, reservedPrefix) }

// The batch representations of single operations, in one allocation; Pebble's
// own Batch starts with a kilobyte.

// ReprSet returns a batch that sets key to value.
func ReprSet(key, value []byte) []byte { return reprOf(kindSet, key, value, true) }

// ReprMerge returns a batch that merges value into key.
func ReprMerge(key, value []byte) []byte { return reprOf(kindMerge, key, value, true) }

// ReprDelete returns a batch that deletes key.
func ReprDelete(key []byte) []byte { return reprOf(kindDelete, key, nil, false) }

// ReprDeleteRange returns a batch that deletes the keys from start up to, not
// including, end.
func ReprDeleteRange(start, end []byte) []byte { return reprOf(kindRangeDelete, start, end, true) }

func reprOf(kind byte, key, value []byte, hasValue bool) []byte {
	b := make([]byte, reprHeader, reprHeader+1+2*binary.MaxVarintLen32+len(key)+len(value))
	binary.LittleEndian.PutUint32(b[8:], 1)
	b = append(b, kind)
	b = appendBytes(b, key)
	if hasValue {
		b = appendBytes(b, value)
	}
	return b
}
