package party

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// IterOptions say what an iterator walks over. The zero value, and nil, mean
// everything.
type IterOptions struct {
	LowerBound []byte // inclusive; nil: none
	UpperBound []byte // exclusive; nil: none
	KeysOnly   bool   // Value returns nil, and no values are transferred
	// Strict: fail with ErrSnapshotLost rather than go on with a new leader.
	Strict bool
}

// Iterator walks over the keys in the order of the comparer. It is used by one
// goroutine at a time.
//
// It reads pages of keys from the leader as it goes, so it is not one point in
// time: a key that is written behind it is not seen, one that is written ahead
// of it may be. It gives no key twice in one direction and skips none that is
// there throughout; if the leader goes away it goes on at the next key on the
// new one, unless Strict is set.
type Iterator struct {
	from pager
	ctx  context.Context
	o    IterOptions

	place   place
	pairs   []snapshot.Pair // the page when place is onPage; ascending
	pos     int             // of the current key in it
	atFirst bool            // nothing comes before the page
	atLast  bool            // nothing comes behind the page
	size    int             // bytes of the next page
	term    uint64          // of the leader that the first page came from
	err     error
	closed  bool
}

// place is where an iterator stands.
type place int

const (
	nowhere place = iota // not positioned yet
	before               // in front of the first key
	onPage               // on a key
	behind               // behind the last key
)

// Pages start small, for who looks at the first keys only, and grow.
const (
	firstPage = 16 << 10
	lastPage  = 512 << 10
)

// NewIter returns an iterator that stands nowhere: begin with First, Last,
// SeekGE or SeekLT. ctx is for the whole life of the iterator; when it ends the
// iterator stops with its error. The bounds are copied. The caller must Close it.
func (db *DB) NewIter(ctx context.Context, o *IterOptions) (*Iterator, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-db.ended:
		return nil, ErrClosed
	default:
	}
	return newIterator(ctx, db, o), nil
}

// pager is where an iterator gets its pages: the leader, or a snapshot. The term
// changes when pages are of another point in time than those before.
type pager interface {
	page(ctx context.Context, r *snapshot.Request) (page []byte, term uint64, err error)
}

func newIterator(ctx context.Context, from pager, o *IterOptions) *Iterator {
	it := &Iterator{from: from, ctx: ctx, size: firstPage}
	if o != nil {
		it.o = *o
		it.o.LowerBound = cloneBytes(o.LowerBound)
		it.o.UpperBound = cloneBytes(o.UpperBound)
	}
	return it
}

// cloneBytes copies b; nil stays nil and empty stays empty.
func cloneBytes(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// First moves to the first key and tells whether there is one.
func (it *Iterator) First() bool { return it.seek(&snapshot.Request{}) }

// Last moves to the last key and tells whether there is one.
func (it *Iterator) Last() bool { return it.seek(&snapshot.Request{Reverse: true}) }

// SeekGE moves to the first key that is key or greater and tells whether there
// is one.
func (it *Iterator) SeekGE(key []byte) bool {
	return it.seek(&snapshot.Request{From: append([]byte{}, key...)})
}

// SeekLT moves to the last key that is less than key and tells whether there is
// one.
func (it *Iterator) SeekLT(key []byte) bool {
	return it.seek(&snapshot.Request{From: append([]byte{}, key...), Reverse: true})
}

// Next moves to the next key and tells whether there is one. An iterator that
// has not been positioned, or stands in front of the first key, moves to that.
func (it *Iterator) Next() bool {
	switch {
	case it.err != nil || it.place == behind:
		return false
	case it.place != onPage:
		return it.First()
	case it.pos+1 < len(it.pairs):
		it.pos++
		return true
	case it.atLast:
		it.place, it.pairs = behind, nil
		return false
	}
	return it.load(&snapshot.Request{From: it.pairs[len(it.pairs)-1].Key, After: true})
}

// Prev moves to the key before and tells whether there is one. An iterator that
// has not been positioned, or stands behind the last key, moves to that.
func (it *Iterator) Prev() bool {
	switch {
	case it.err != nil || it.place == before:
		return false
	case it.place != onPage:
		return it.Last()
	case it.pos > 0:
		it.pos--
		return true
	case it.atFirst:
		it.place, it.pairs = before, nil
		return false
	}
	return it.load(&snapshot.Request{From: it.pairs[0].Key, Reverse: true})
}

// seek positions the iterator anew; like Pebble's it then forgets an error.
func (it *Iterator) seek(r *snapshot.Request) bool {
	it.err, it.size = nil, firstPage
	return it.load(r)
}

// load fetches a page and moves to the key of it that is next in its direction.
func (it *Iterator) load(r *snapshot.Request) bool {
	pairs, last, err := it.fetch(r)
	if err != nil {
		it.err, it.place, it.pairs = err, nowhere, nil
		return false
	}
	it.size = min(2*it.size, lastPage)
	it.pairs = pairs
	if r.Reverse {
		slices.Reverse(pairs)
		it.place, it.pos = before, len(pairs)-1
		it.atFirst, it.atLast = last, r.From == nil
	} else {
		it.place, it.pos = behind, 0
		it.atFirst, it.atLast = r.From == nil, last
	}
	if len(pairs) > 0 {
		it.place = onPage
	}
	return it.place == onPage
}

func (it *Iterator) fetch(r *snapshot.Request) ([]snapshot.Pair, bool, error) {
	if it.closed {
		return nil, false, ErrClosed
	}
	r.Lower, r.Upper, r.KeysOnly, r.Bytes = it.o.LowerBound, it.o.UpperBound, it.o.KeysOnly, it.size
	page, term, err := it.from.page(it.ctx, r)
	if err != nil {
		return nil, false, err
	}
	if it.term == 0 {
		it.term = term
	}
	if it.o.Strict && term != it.term {
		return nil, false, fmt.Errorf("%w: it began in term %d, now is term %d", ErrSnapshotLost, it.term, term)
	}
	return snapshot.DecodePage(page, it.o.KeysOnly)
}

// page gets a page from whoever leads.
func (db *DB) page(ctx context.Context, r *snapshot.Request) (page []byte, term uint64, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		s, err := db.route(ctx)
		if err != nil {
			return nil, 0, db.explain(err)
		}
		var b []byte
		if s.leader != nil {
			b, err = s.leader.page(ctx, r, nil)
		} else {
			var t msgType
			if t, b, err = s.remote.ask(ctx, r.Append(appendHeader(nil, msgPage))); err == nil && t != msgPageReply {
				err = fmt.Errorf("%w: reply type %d to a page request", errWire, t)
			}
		}
		switch {
		case err == nil:
			term, n := binary.Uvarint(b)
			if n <= 0 {
				return nil, 0, fmt.Errorf("%w: page without a term", errWire)
			}
			return b[n:], term, nil
		case errors.Is(err, errGone): // stopped for long while the page was on its way
		case !errors.Is(err, errLost):
			return nil, 0, db.explain(wrapError(err))
		case db.opts.NoRetry:
			return nil, 0, ErrLeaderLost
		default:
			if err := db.leave(ctx, s); err != nil {
				return nil, 0, db.explain(err)
			}
		}
	}
}

// Valid tells whether the iterator stands on a key.
func (it *Iterator) Valid() bool { return it.err == nil && it.place == onPage }

// Key returns the current key, nil if the iterator stands on none. It is valid
// until the iterator moves; do not change it.
func (it *Iterator) Key() []byte {
	if !it.Valid() {
		return nil
	}
	return it.pairs[it.pos].Key
}

// Value returns the value of the current key, nil with KeysOnly or if the
// iterator stands on no key. It is valid until the iterator moves; do not change
// it.
func (it *Iterator) Value() []byte {
	if !it.Valid() {
		return nil
	}
	return it.pairs[it.pos].Value
}

// Error returns why the iterator stopped, nil if it only came to an end.
func (it *Iterator) Error() error { return it.err }

// Close ends the iterator and returns its error.
func (it *Iterator) Close() error {
	err := it.err
	if !it.closed {
		it.closed = true
		it.place, it.pairs = nowhere, nil
		it.err = ErrClosed
	}
	return err
}

// All walks over the keys from the first on:
//
//	for k, v := range it.All() { … }
//
// Key and value are valid for one turn of the loop. When the loop ends by itself
// Error tells whether it came to the end of the keys.
func (it *Iterator) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for ok := it.First(); ok; ok = it.Next() {
			if !yield(it.Key(), it.Value()) {
				return
			}
		}
	}
}
