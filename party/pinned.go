package party

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// pinned is where an iterator gets its pages from when the state is in its own
// process: a leader's, or that of a snapshot. It reads them itself, one at a time:
// so the end of the term never waits for the body of somebody's loop.
type pinned struct {
	pins *pins
	gate *gate // of what it reads; cur is used within it only
	over error // when the gate is closed
	cur  *snapshot.Cursor

	// Owned by the iterator.
	index uint64 // of the next page of the walk
	buf   []byte
	pairs []snapshot.Pair
}

// largestOwn bounds the pages that an iterator reads in its own process, in bytes:
// they stay in the processor's cache.
const largestOwn = 64 << 10

// pins are the points in time that iterators of this process hold. What they are
// of closes them with itself: Pebble cannot be closed before.
type pins struct {
	mu   sync.Mutex
	open map[*pinned]struct{}
}

// pin fixes a point in time for an iterator of this process and returns the first
// page of a walk. The error is errLost when the term is over.
func (l *leader) pin(ctx context.Context, b snapshot.Bounds, at snapshot.Position) (pages, page, error) {
	if !l.gate.enter() {
		return nil, page{}, errLost
	}
	defer l.gate.exit()
	if err := l.current(ctx); err != nil {
		return nil, page{}, err
	}
	p := &pinned{pins: &l.scans.own, gate: l.gate, over: errLost}
	return p.begin(l.machine, b, at, l.db.opts.Pebble.Comparer)
}

// begin fixes the point in time. The gate is passed.
func (p *pinned) begin(from snapshot.Source, b snapshot.Bounds, at snapshot.Position, cmp *pebble.Comparer) (_ pages, _ page, err error) {
	if p.cur, err = snapshot.NewCursor(from, b, cmp); err != nil {
		return nil, page{}, err
	}
	p.pins.add(p)
	first, err := p.walk(at)
	if err != nil {
		p.pins.drop(p)
		return nil, page{}, err
	}
	return p, first, nil
}

func (p *pinned) seek(_ context.Context, at snapshot.Position) (page, error) {
	if !p.gate.enter() {
		return page{}, p.over
	}
	defer p.gate.exit()
	return p.walk(at)
}

// walk begins a walk. The gate is passed.
func (p *pinned) walk(at snapshot.Position) (page, error) {
	p.index = 0
	if err := p.cur.Seek(at); err != nil {
		return page{}, err
	}
	return p.read()
}

func (p *pinned) next(context.Context) (page, error) {
	if !p.gate.enter() {
		return page{}, p.over
	}
	defer p.gate.exit()
	return p.read()
}

// read reads the next page. The gate is passed.
func (p *pinned) read() (_ page, err error) {
	var end snapshot.End
	if cap(p.buf) > 4*largestOwn {
		p.buf = nil
	}
	p.pairs, p.buf, end, err = p.cur.Pairs(p.pairs[:0], p.buf[:0], min(pageSize(p.index), largestOwn))
	if err != nil {
		return page{}, err
	}
	p.index++
	return page{pairs: p.pairs, last: end == snapshot.Last}, nil
}

// ahead does nothing: to read a page is quick.
func (p *pinned) ahead() {}

func (p *pinned) close() {
	if p.gate.enter() { // else whose state it is has closed it, or will
		p.pins.drop(p)
		p.gate.exit()
	}
}

func (ps *pins) add(p *pinned) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.open == nil {
		ps.open = make(map[*pinned]struct{})
	}
	ps.open[p] = struct{}{}
}

// drop lets go of one point in time. Its gate is passed.
func (ps *pins) drop(p *pinned) {
	ps.mu.Lock()
	delete(ps.open, p)
	ps.mu.Unlock()
	_ = p.cur.Close() // what it met has been reported to its reader
}

func (ps *pins) count() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.open)
}

// close lets go of all. The gate is closed.
func (ps *pins) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for p := range ps.open {
		_ = p.cur.Close()
	}
	clear(ps.open)
}
