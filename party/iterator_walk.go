package party

import (
	"errors"
	"fmt"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// How an Iterator moves: over pairs in its own process, or over pages of its leader, and
// to the next leader when that is lost.

// advance moves where quick does not do.
func (it *Iterator) advance(reverse bool) bool {
	if it.own != nil {
		return it.step(reverse)
	}
	return it.move(reverse)
}

// seek positions the iterator anew; like Pebble's it then forgets an error.
func (it *Iterator) seek(at snapshot.Position) bool {
	if p := &it.page; at.From == nil && p.first && p.reverse == at.Reverse && it.ctx.Err() == nil {
		it.placed, it.pos = true, 0
		return len(p.pairs) > 0
	}
	it.err = nil
	return it.load(at, false)
}

// contextEvery is after how many moves in its own process an iterator looks at its
// context.
const contextEvery = 64

// quick tells whether nothing has to be looked at before own.it may move on to a key.
func (it *Iterator) quick() bool {
	p := it.own
	if p == nil {
		return false
	}
	it.moves++
	return p.ok && p.plain && it.moves%contextEvery != 0 && !p.revoked.Load()
}

// step moves where the state is in this process.
func (it *Iterator) step(reverse bool) bool {
	p := it.own
	if !p.ok {
		switch {
		case it.err != nil:
			return false
		case !it.placed:
			return it.seek(snapshot.Position{Reverse: reverse})
		case it.below == reverse:
			return false
		}
	}
	at := snapshot.Position{Reverse: reverse, After: p.ok}
	if it.moves%contextEvery == 0 && it.ctx.Err() != nil {
		return it.fail(it.ctx.Err())
	}
	if err := p.step(reverse); err != nil {
		if !errors.Is(err, errLost) {
			return it.fail(wrapError(err))
		}
		if at.After {
			at.From = p.key
		}
		return it.load(at, false)
	}
	it.below = reverse
	return p.ok
}

// fail stops the iterator.
func (it *Iterator) fail(err error) bool {
	it.err, it.page, it.placed = err, page{}, false
	if it.own != nil {
		it.own.ok = false
	}
	return false
}

// move moves where the pairs come in pages.
func (it *Iterator) move(reverse bool) bool {
	switch {
	case it.err != nil:
		return false
	case !it.placed:
		return it.seek(snapshot.Position{Reverse: reverse})
	case !it.moved.Load():
		it.moved.Store(true)
	}
	p := &it.page
	if reverse == p.reverse { // on with the walk
		switch {
		case it.pos+1 < len(p.pairs):
			if it.pos++; it.pos == it.hint {
				it.sent.ahead()
			}
			return true
		case p.last:
			it.pos = len(p.pairs)
			return false
		}
		return it.load(snapshot.Position{From: p.pairs[len(p.pairs)-1].Key, Reverse: reverse, After: true}, true)
	}
	switch {
	case it.pos > 0:
		it.pos--
		return true
	case p.first:
		it.pos = -1
		return false
	case len(p.pairs) == 0: // nothing was there: all keys are on the other side
		return it.load(snapshot.Position{Reverse: reverse}, false)
	}
	return it.load(snapshot.Position{From: p.pairs[0].Key, Reverse: reverse, After: true}, false)
}

// load fetches a page and moves to the first key of it. With on set it is the
// next one of the walk; at is where that would begin anew.
func (it *Iterator) load(at snapshot.Position, on bool) bool {
	p, err := it.fetch(at, &on)
	if err != nil {
		return it.fail(err)
	}
	return it.arrive(p, at, on)
}

// arrive moves to where a walk from at begins, or goes on: to the first key of p,
// if there are pages.
func (it *Iterator) arrive(p page, at snapshot.Position, on bool) bool {
	it.placed = true
	if it.own != nil {
		it.page, it.below = page{}, at.Reverse
		return it.own.ok
	}
	p.reverse, p.first = at.Reverse, at.From == nil
	it.page, it.pos, it.hint = p, 0, 0
	if !on {
		it.hint = len(p.pairs) / 2
	}
	return len(p.pairs) > 0
}

// fetch gets a page from the point in time that the iterator has, or from a new
// one; then on is unset.
func (it *Iterator) fetch(at snapshot.Position, on *bool) (p page, err error) {
	switch {
	case it.closed:
		return page{}, ErrClosed
	case it.lost != nil:
		return page{}, it.lost
	}
	if err := it.ctx.Err(); err != nil {
		return page{}, err
	}
	if it.src != nil {
		if *on {
			p, err = it.sent.next(it.ctx)
		} else {
			p, err = it.src.seek(it.ctx, at)
		}
		if !errors.Is(err, errLost) && !errors.Is(err, ErrSnapshotLost) {
			return p, wrapError(err)
		}
		it.src.close()
		it.use(nil)
		if it.o.Strict {
			if it.lost = err; errors.Is(err, errLost) {
				it.lost = fmt.Errorf("%w: the leader went away", ErrSnapshotLost)
			}
			return page{}, it.lost
		}
	}
	*on = false
	if mutant.ResumeForward {
		at.After = false
	}
	if mutant.ResumeBackward && at.After && at.Reverse {
		at.From = append(at.From, 0)
	}
	src, p, err := it.open(it.ctx, &it.o, &at, &it.moved)
	it.use(src)
	return p, err
}
