package party

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// IterOptions say what an iterator walks over. The zero value, and nil, mean
// everything.
type IterOptions struct {
	LowerBound []byte // inclusive; nil: none
	UpperBound []byte // exclusive; nil: none
	KeysOnly   bool   // Value returns nil, and no values are transferred
	// Strict: fail with ErrSnapshotLost rather than go on at another point in time,
	// when the leader goes away or the iterator did not move for a minute.
	Strict bool
}

// Iterator walks over the keys in the order of the comparer. It is used by one
// goroutine at a time.
//
// It sees the database as it was at one moment during NewIter, however it is
// moved, for as long as the leader of that moment leads. If the leader goes away
// the iterator goes on at the next key in its direction on the new one, and sees
// the database as it is then: of the keys that are there throughout it gives none
// twice and skips none. With Strict set it fails with ErrSnapshotLost instead,
// when it needs what it does not have yet.
//
// An iterator that does not move for a minute loses its point in time too, unless
// this process leads: then it goes on as with a new leader.
//
// With Options.LocalReads a handle that does not lead has the point in time in its
// own replica, if there is one when the iterator is opened: then neither a leader
// that goes away nor a pause ends it, and nothing is sent. Such an iterator, and one
// of a Snapshot, gives out Pebble's own memory: the replica stays, even if the handle
// is closed, until the iterator was closed or has found that out as it moved.
//
// The leader sends pages of up to 256 KiB ahead, the more the longer a walk in one
// direction is, so that a loop does not wait for each. At most 2 MiB of them are
// under way for one iterator, wherever they wait, besides the page that it is on;
// a pair that is larger than a page has to be whole in this process. A loop that
// is slow holds up nobody.
type Iterator struct {
	ctx  context.Context
	o    IterOptions
	open opener

	src    source  // nil: lost
	own    *pinned // src, if the state is in this process; it has the current pair
	sent   *stream // src, if its pages are sent
	page   page    // with sent
	placed bool    // it has been positioned; else it stands nowhere, even if it has a page
	moves  uint8   // with own: counts
	below  bool    // with own, and if it stands on no key: in front of the first one
	pos    int     // in the page; -1: in front of its pairs, len(pairs): behind them
	hint   int     // the position in the page at which sent.ahead is called; 0: none
	moved  atomic.Bool
	err    error
	lost   error // Strict: the point in time is lost for good
	closed bool
}

// source is one point in time and where an iterator gets its pairs from: *pinned
// or *stream.
type source interface {
	// seek begins a walk and returns its first page, if the pairs come in pages,
	// which is good until the next one. The error is errLost when the point in time
	// has gone with its leader, ErrSnapshotLost when it has gone otherwise.
	seek(ctx context.Context, at snapshot.Position) (page, error)
	close()
}

// page is a run of pairs in the order of the walk.
type page struct {
	pairs   []snapshot.Pair
	reverse bool // the walk is descending
	first   bool // nothing comes in front of it, whence the walk comes
	last    bool // nothing comes behind it
}

// opener fixes a point in time and begins a walk over it. Without a position that
// is at the first key, or nowhere. moved is set whenever the iterator moves.
type opener func(ctx context.Context, o *IterOptions, at *snapshot.Position, moved *atomic.Bool) (source, page, error)

// NewIter returns an iterator over the database as it is now: it sees every write
// that was acknowledged before, in any process, and none that begins after NewIter
// has returned. It stands nowhere: begin with First, Last, SeekGE or SeekLT.
//
// NewIter asks the leader and waits for its answer, which brings the first keys
// along; with Options.LocalReads, and in a process that leads, it asks nobody. ctx is
// for the whole life of the iterator; when it ends the iterator stops with its
// error, some keys later perhaps. The bounds are copied. The caller must Close the iterator,
// because the leader holds its point in time: Pebble cannot remove what is
// deleted or overwritten while an iterator may still look at it.
//
// The errors are that of ctx, ErrClosed, ErrLeaderLost with Options.NoRetry, and
// what the leader met.
func (db *DB) NewIter(ctx context.Context, o *IterOptions) (*Iterator, error) {
	return newIterator(ctx, o, db.openIter)
}

func newIterator(ctx context.Context, o *IterOptions, open opener) (*Iterator, error) {
	it := &Iterator{ctx: ctx, open: open}
	if o != nil {
		it.o = *o
		it.o.LowerBound = cloneBytes(o.LowerBound)
		it.o.UpperBound = cloneBytes(o.UpperBound)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	src, p, err := open(ctx, &it.o, nil, &it.moved)
	if err != nil {
		return nil, err
	}
	it.use(src)
	it.arrive(p, snapshot.Position{}, false) // most begin with First
	it.placed = false
	return it, nil
}

// use makes src, or nil, what the iterator reads.
func (it *Iterator) use(src source) {
	it.src = src
	it.own, _ = src.(*pinned)
	it.sent, _ = src.(*stream)
}

// cloneBytes copies b; nil stays nil and empty stays empty.
func cloneBytes(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// First moves to the first key and tells whether there is one.
func (it *Iterator) First() bool { return it.seek(snapshot.Position{}) }

// Last moves to the last key and tells whether there is one.
func (it *Iterator) Last() bool { return it.seek(snapshot.Position{Reverse: true}) }

// SeekGE moves to the first key that is key or greater and tells whether there
// is one. It waits for the leader.
func (it *Iterator) SeekGE(key []byte) bool {
	return it.seek(snapshot.Position{From: append([]byte{}, key...)})
}

// SeekLT moves to the last key that is less than key and tells whether there is
// one. It waits for the leader.
func (it *Iterator) SeekLT(key []byte) bool {
	return it.seek(snapshot.Position{From: append([]byte{}, key...), Reverse: true})
}

// Next moves to the next key and tells whether there is one. An iterator that
// has not been positioned, or stands in front of the first key, moves to that.
func (it *Iterator) Next() bool {
	if it.quick() && it.own.it.Forth() {
		return true
	}
	return it.advance(false)
}

// Prev moves to the key before and tells whether there is one. An iterator that
// has not been positioned, or stands behind the last key, moves to that.
func (it *Iterator) Prev() bool {
	if it.quick() && it.own.it.Back() {
		return true
	}
	return it.advance(true)
}

// Valid tells whether the iterator stands on a key.
func (it *Iterator) Valid() bool {
	if it.own != nil {
		return it.own.ok
	}
	return it.placed && uint(it.pos) < uint(len(it.page.pairs))
}

// Key returns the current key, nil if the iterator stands on none. It is valid
// until the iterator moves or is closed; do not change it.
func (it *Iterator) Key() []byte {
	if p := it.own; p != nil {
		switch {
		case !p.ok:
			return nil
		case p.lent:
			return p.it.Key()
		}
		return slices.Clip(p.key)
	}
	if !it.Valid() {
		return nil
	}
	return it.page.pairs[it.pos].Key
}

// Value returns the value of the current key, nil with KeysOnly or if the
// iterator stands on no key. It is valid until the iterator moves or is closed; do
// not change it. If it cannot be read, because a file is damaged, it is nil and the
// iterator stops: see Error.
func (it *Iterator) Value() []byte {
	if p := it.own; p != nil {
		switch {
		case !p.ok || p.keysOnly:
			return nil
		case !p.lent:
			return slices.Clip(p.value)
		}
		v, err := p.it.Value()
		switch {
		case err != nil:
			it.fail(wrapError(err))
			return nil
		case v == nil:
			return []byte{} // for it is there
		}
		return v
	}
	if !it.Valid() {
		return nil
	}
	return it.page.pairs[it.pos].Value
}

// Error returns why the iterator stopped, nil if it only came to an end. Besides
// those of NewIter that is ErrSnapshotLost, with Strict.
func (it *Iterator) Error() error { return it.err }

// Close ends the iterator, lets the leader free its point in time, and returns
// the iterator's error. It does not block, but for the last iterator over a replica
// of a handle that is closed: that removes the replica.
func (it *Iterator) Close() error {
	err := it.err
	if !it.closed {
		it.closed = true
		if it.src != nil {
			it.src.close()
		}
		it.use(nil)
		it.page, it.placed, it.err = page{}, false, ErrClosed
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
	return it.loop(it.First, it.Next)
}

// Backward is All from the last key to the first.
func (it *Iterator) Backward() iter.Seq2[[]byte, []byte] {
	return it.loop(it.Last, it.Prev)
}

func (it *Iterator) loop(start, move func() bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for ok := start(); ok; ok = move() {
			if !yield(it.Key(), it.Value()) {
				return
			}
		}
	}
}
