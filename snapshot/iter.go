package snapshot

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Source is what an Iter reads: a Pebble database or snapshot.
type Source interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// Iter is Pebble's iterator over one point in time, which passes over reserved
// keys. It holds the memtables and tables of the moment at which it was opened.
type Iter struct {
	it       *pebble.Iterator
	cmp      *pebble.Comparer
	bytewise bool // reserved keys stand together
}

// NewIter opens an iterator that sees from as it is now, within the bounds, which
// are copied. It stands nowhere: begin with First, Last, SeekGE or SeekLT. cmp is
// the comparer of the database. The caller must Close it before from is closed.
// The error is ErrMalformed for a bound that the comparer does not know, or
// Pebble's.
func NewIter(from Source, b Bounds, cmp *pebble.Comparer) (*Iter, error) {
	if err := validate(cmp, b.Lower, b.Upper); err != nil {
		return nil, err
	}
	if len(b.Lower) == 0 {
		b.Lower = nil // no key is less than the empty one, and Pebble's own checks trip over it
	}
	if b.Lower != nil && b.Upper != nil && cmp.Compare(b.Lower, b.Upper) > 0 {
		b.Upper = b.Lower // nothing, which Pebble does not promise
	}
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: b.Lower, UpperBound: b.Upper})
	if err != nil {
		return nil, err
	}
	return &Iter{it: it, cmp: cmp, bytewise: cmp.Name == pebble.DefaultComparer.Name}, nil
}

// validate refuses keys that the comparer does not know. Comparers may panic with
// them, and these may come from another process.
func validate(cmp *pebble.Comparer, keys ...[]byte) error {
	for _, key := range keys {
		if err := cmp.ValidateKey.Validate(key); key != nil && err != nil {
			return fmt.Errorf("%w: key: %w", ErrMalformed, err)
		}
	}
	return nil
}

// First moves to the first key and tells whether there is one.
func (i *Iter) First() bool { return i.it.First() && i.forward() }

// Last moves to the last key and tells whether there is one.
func (i *Iter) Last() bool { return i.it.Last() && i.backward() }

// Next moves to the next key and tells whether there is one.
func (i *Iter) Next() bool { return i.it.Next() && i.forward() }

// Prev moves to the key before and tells whether there is one.
func (i *Iter) Prev() bool { return i.it.Prev() && i.backward() }

// Seek moves to where a walk from p begins and tells whether a key is there. The
// error is ErrMalformed for a position that the comparer does not know, or
// Pebble's.
func (i *Iter) Seek(p Position) (ok bool, err error) {
	if err := validate(i.cmp, p.From); err != nil {
		return false, err
	}
	switch {
	case p.Reverse && p.From == nil:
		ok = i.Last()
	case p.Reverse:
		ok = i.it.SeekLT(p.From) && i.backward()
	case p.From == nil:
		ok = i.First()
	default:
		ok = i.it.SeekGE(p.From) && i.forward()
	}
	if ok && p.After && !p.Reverse && p.From != nil && i.cmp.Equal(i.it.Key(), p.From) {
		ok = i.Next()
	}
	return ok, i.it.Error()
}

// reserved tells whether it stands on a reserved key. Nearly every other key
// differs in its first byte.
func (i *Iter) reserved() bool {
	key := i.it.Key()
	return len(key) > 0 && key[0] == apply.ReservedPrefix[0] && apply.IsReserved(key)
}

// forward passes over reserved keys, upwards.
func (i *Iter) forward() (ok bool) {
	for ok = true; ok && i.reserved(); {
		if i.bytewise {
			ok = i.it.SeekGE(reservedEnd)
		} else {
			ok = i.it.Next()
		}
	}
	return ok
}

// backward passes over reserved keys, downwards.
func (i *Iter) backward() (ok bool) {
	for ok = true; ok && i.reserved(); {
		if i.bytewise {
			ok = i.it.SeekLT([]byte(apply.ReservedPrefix))
		} else {
			ok = i.it.Prev()
		}
	}
	return ok
}

// reservedEnd is the first key behind the reserved ones in byte order.
var reservedEnd = func() []byte {
	b := []byte(apply.ReservedPrefix)
	b[len(b)-1]++
	return b
}()

// Key returns the current key; the iterator must stand on one. It is Pebble's
// memory, until the iterator moves or is closed.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value returns the value of the current key, as Key does that, or why it cannot
// be read. An empty value is not nil.
func (i *Iter) Value() ([]byte, error) {
	v, err := i.it.ValueAndErr()
	if v == nil && err == nil {
		v = []byte{}
	}
	return v, err
}

// Error returns why the iterator stopped, nil if it came to an end.
func (i *Iter) Error() error { return i.it.Error() }

// Close frees what the iterator holds and returns the error that it met, if any.
func (i *Iter) Close() error { return i.it.Close() }
