package snapshot

import (
	"bytes"
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
//
// In byte order the reserved keys stand together, and nearly all others in front of
// them. So Pebble's iterator walks over two legs, what is below them and what is
// above, and never meets one: the memtable in which they are, if there is nothing
// else in it, takes no part in a walk. With a comparer of one's own they may be
// anywhere, and each key is looked at.
type Iter struct {
	it    *pebble.Iterator
	cmp   *pebble.Comparer
	mixed bool // each key is looked at, and there is one leg

	// Two legs, unless the bounds leave only one of them, or nothing.
	legs         bool
	above        bool // it is on the upper one
	lower, upper []byte
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
	i := &Iter{cmp: cmp, mixed: cmp.Name != pebble.DefaultComparer.Name}
	if !i.mixed {
		i.split(&b)
	}
	if b.Lower != nil && b.Upper != nil && cmp.Compare(b.Lower, b.Upper) > 0 {
		b.Upper = b.Lower // nothing, which Pebble does not promise
	}
	var err error
	if i.it, err = from.NewIter(&pebble.IterOptions{LowerBound: b.Lower, UpperBound: b.Upper}); err != nil {
		return nil, err
	}
	return i, nil
}

// split keeps b off the reserved keys: it becomes what is left of it, or the lower
// leg.
func (i *Iter) split(b *Bounds) {
	below := bytes.Compare(b.Lower, reservedBegin) < 0
	above := b.Upper == nil || bytes.Compare(b.Upper, reservedEnd) > 0
	switch {
	case below && above:
		i.legs, i.lower, i.upper = true, bytes.Clone(b.Lower), bytes.Clone(b.Upper)
		b.Upper = reservedBegin
	case below && bytes.Compare(b.Upper, reservedBegin) > 0:
		b.Upper = reservedBegin
	case !below && bytes.Compare(b.Lower, reservedEnd) < 0:
		b.Lower = reservedEnd
	}
}

// The reserved keys in byte order: from the first on, which none has to be, and up to
// the second.
var (
	reservedBegin = []byte(apply.ReservedPrefix)
	reservedEnd   = func() []byte {
		b := []byte(apply.ReservedPrefix)
		b[len(b)-1]++
		return b
	}()
)

// climb moves to a leg, where it stands nowhere.
func (i *Iter) climb(above bool) {
	switch {
	case i.above == above || !i.legs:
		return
	case above:
		i.it.SetBounds(reservedEnd, i.upper)
	default:
		i.it.SetBounds(i.lower, reservedBegin)
	}
	i.above = above
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
func (i *Iter) First() bool {
	i.climb(false)
	return i.forward(i.it.First())
}

// Last moves to the last key and tells whether there is one.
func (i *Iter) Last() bool {
	i.climb(true)
	return i.backward(i.it.Last())
}

// Next moves to the next key and tells whether there is one.
func (i *Iter) Next() bool {
	ok := i.it.Next()
	return ok && !i.mixed || i.forward(ok)
}

// Prev moves to the key before and tells whether there is one.
func (i *Iter) Prev() bool {
	ok := i.it.Prev()
	return ok && !i.mixed || i.backward(ok)
}

// Plain tells that Forth and Back may be used.
func (i *Iter) Plain() bool { return !i.mixed }

// Forth is Next from a key, for loops: the compiler puts Pebble's right there. It may
// come to no key though there is one; then it has not moved as far as Next is
// concerned, which is to be called.
func (i *Iter) Forth() bool { return i.it.Next() }

// Back is Prev as Forth is Next.
func (i *Iter) Back() bool { return i.it.Prev() }

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
		i.climb(bytes.Compare(p.From, reservedEnd) > 0)
		ok = i.backward(i.it.SeekLT(p.From))
	case p.From == nil:
		ok = i.First()
	default:
		i.climb(bytes.Compare(p.From, reservedBegin) >= 0)
		ok = i.forward(i.it.SeekGE(p.From))
	}
	if ok && p.After && !p.Reverse && p.From != nil && i.cmp.Equal(i.it.Key(), p.From) {
		ok = i.Next()
	}
	return ok, i.it.Error()
}

// forward goes on upwards from where Pebble's iterator has moved, ok if to a key: to
// a key that is not reserved.
func (i *Iter) forward(ok bool) bool {
	for ok && i.mixed && apply.IsReserved(i.it.Key()) {
		ok = i.it.Next()
	}
	if ok || !i.legs || i.above || i.it.Error() != nil {
		return ok
	}
	i.climb(true)
	return i.it.First()
}

// backward is forward downwards.
func (i *Iter) backward(ok bool) bool {
	for ok && i.mixed && apply.IsReserved(i.it.Key()) {
		ok = i.it.Prev()
	}
	if ok || !i.legs || !i.above || i.it.Error() != nil {
		return ok
	}
	i.climb(false)
	return i.it.Last()
}

// Key returns the current key; the iterator must stand on one. It is Pebble's
// memory, until the iterator moves or is closed.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value returns the value of the current key, as Key does that, or why it cannot
// be read. An empty value may be nil.
func (i *Iter) Value() ([]byte, error) { return i.it.ValueAndErr() }

// Error returns why the iterator stopped, nil if it came to an end.
func (i *Iter) Error() error { return i.it.Error() }

// Close frees what the iterator holds and returns the error that it met, if any.
func (i *Iter) Close() error { return i.it.Close() }
