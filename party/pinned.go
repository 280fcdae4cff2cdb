package party

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// pinned is where an iterator stands when the state is in its own process: on a
// Pebble iterator.
//
// That of a leader is closed by the end of the term, wherever its owner is. So the
// pair that it is on is a copy, what the body of a loop looks at stays, and the end
// of the term waits for one move at most.
//
// Those of replicas are lent: the owner looks at Pebble's memory, so nobody else may
// close the iterator, and the replica stays until the owner has.
type pinned struct {
	// Immutable.
	pins     *pins
	keysOnly bool
	over     error  // when it was revoked
	lent     bool   // by a replica; mu, key and value are not used
	plain    bool   // lent, and it.Plain: most moves need no more than Pebble's
	freed    func() // called once it is closed; nil: nobody has to know

	revoked atomic.Bool // it is to move no more, and whoever revoked it does not close it

	mu sync.Mutex     // without lent: held during a move
	it *snapshot.Iter // nil: it is closed

	// Owned by the iterator.
	ok         bool // it stands on a pair
	key, value []byte
}

// spareValue is how large a value may have been for its memory to be kept for
// those that follow.
const spareValue = 1 << 20

// begin enters a move, unless it is not to move any more.
func (p *pinned) begin() error {
	if p.lent {
		if p.revoked.Load() {
			p.close()
			return p.end(p.over)
		}
		return nil
	}
	p.mu.Lock()
	if p.it == nil || p.revoked.Load() {
		p.mu.Unlock()
		return p.end(p.over)
	}
	return nil
}

func (p *pinned) seek(_ context.Context, at snapshot.Position) (page, error) {
	if err := p.begin(); err != nil {
		return page{}, err
	}
	if !p.lent {
		defer p.mu.Unlock()
	}
	ok, err := p.it.Seek(at)
	if err != nil {
		return page{}, p.end(err)
	}
	return page{}, p.take(ok)
}

// step moves to the next pair in a direction.
func (p *pinned) step(reverse bool) error {
	if err := p.begin(); err != nil {
		return err
	}
	if !p.lent {
		defer p.mu.Unlock()
	}
	if reverse {
		return p.take(p.it.Prev())
	}
	return p.take(p.it.Next())
}

// take notes whether it has moved to a pair, and copies that unless it is lent.
func (p *pinned) take(ok bool) (err error) {
	switch {
	case !ok:
		return p.end(p.it.Error())
	case p.lent:
		p.ok = true
		return nil
	}
	var value []byte
	if !p.keysOnly {
		if value, err = p.it.Value(); err != nil {
			return p.end(err)
		}
		if p.value == nil || cap(p.value) > spareValue && len(value) < spareValue {
			p.value = make([]byte, 0, len(value)) // an empty value is not nil
		}
		p.value = append(p.value[:0], value...)
	}
	p.key, p.ok = append(p.key[:0], p.it.Key()...), true
	return nil
}

// end notes that it stands on no pair. The key that it was on stays in p.key.
func (p *pinned) end(err error) error {
	p.ok = false
	return err
}

func (p *pinned) close() { p.pins.drop(p) }

// shut closes it, if that was not done before.
func (p *pinned) shut() {
	p.mu.Lock()
	it := p.it
	p.it = nil
	if p.lent { // else the owner has the copy, and this may be another goroutine
		p.ok = false
	}
	if it != nil && (p.lent || !p.revoked.Load()) { // else it is given up with its Pebble
		_ = it.Close() // what it met has been reported to its reader
	}
	p.mu.Unlock()
	if it != nil && p.freed != nil {
		p.freed()
	}
}

// pins are the points in time that iterators of this process hold of one state.
// What that is closes them with itself, as Pebble cannot be closed before; or it
// stays until those that are lent are closed.
type pins struct {
	mu   sync.Mutex
	open map[*pinned]struct{}
	over bool // what they are of was given up
}

// pin fixes a point in time for an iterator of this process. The error is errLost
// when the term is over.
func (l *leader) pin(ctx context.Context, b snapshot.Bounds, at *snapshot.Position) (source, error) {
	if !l.gate.enter() {
		return nil, errLost
	}
	defer l.gate.exit()
	if err := l.current(ctx); err != nil {
		return nil, err
	}
	p := &pinned{over: errLost}
	if err := l.scans.own.pin(p, l.machine, b, l.db.opts.Pebble.Comparer, at); err != nil {
		return nil, err
	}
	return p, nil
}

// pin fixes a point in time for an iterator, that of from as it is now, and moves
// to at, unless that is nil. over, lent and freed of p are set; freed is called after an
// error too. The caller has passed the gate that is closed before ps is.
func (ps *pins) pin(p *pinned, from snapshot.Source, b snapshot.Bounds, cmp *pebble.Comparer, at *snapshot.Position) error {
	it, err := snapshot.NewIter(from, b, cmp)
	if err != nil {
		if p.freed != nil {
			p.freed()
		}
		return err
	}
	p.pins, p.keysOnly, p.plain, p.it = ps, b.KeysOnly, p.lent && it.Plain(), it
	ps.add(p)
	if at == nil {
		return nil
	}
	if _, err = p.seek(context.Background(), *at); err != nil {
		p.close()
	}
	return err
}

func (ps *pins) add(p *pinned) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.open == nil {
		ps.open = make(map[*pinned]struct{})
	}
	ps.open[p] = struct{}{}
	if ps.over {
		p.revoked.Store(true)
	}
}

// drop lets go of one point in time. It is in the table until it is closed, for
// close to wait for that.
func (ps *pins) drop(p *pinned) {
	p.shut()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.open, p)
}

func (ps *pins) count() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.open)
}

// close lets go of all but those that are lent, which move no more. Nobody pins any
// more.
func (ps *pins) close() {
	ps.mu.Lock()
	open := slices.Collect(maps.Keys(ps.open))
	ps.mu.Unlock()
	for _, p := range open {
		if p.lent {
			p.revoked.Store(true)
		} else {
			ps.drop(p)
		}
	}
}

// revoke has none of them move any more, and leaves them open: what they are of was
// given up.
func (ps *pins) revoke() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.over = true
	for p := range ps.open {
		p.revoked.Store(true)
	}
}
