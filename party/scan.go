package party

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// scan is the leader's end of an iterator of a follower: a point in time, and
// the walk over it that is under way. It has no goroutine while it waits for its
// follower. Iterators that use the same inbox, one after the other, may share it.
type scan struct {
	// Immutable.
	l     *leader
	conn  *nats.Conn // for pages
	inbox string

	// Owned by work while busy is set. Used within the leader's gate only.
	pin   *snapshot.Cursor // nil: not opened yet
	walk  uint64
	sent  uint64 // pages of the walk
	going bool   // the walk has more pages

	mu      sync.Mutex
	busy    bool      // work runs
	seek    *iterSeek // the newest, until work begins with it
	newest  uint64    // its walk
	allowed uint64    // pages of the newest walk that may be sent
	over    bool      // its point in time is to be freed
	gone    bool      // it is, and the scan is out of the table
	used    time.Time // when its follower was last heard of
}

// The pages of a walk grow, for who looks at the first keys only: each KiB of the
// first page makes its first key a tenth of a request later. The largest bounds
// what an iterator may have under way: see window.
const (
	smallestPage = 1 << 10
	largestPage  = 128 << 10
	// wholePair is how large a pair may be that fills the first page by itself: it
	// comes at once, and not in parts.
	wholePair = 4 << 10
)

// pageSize is the size of the page of that index, in bytes.
func pageSize(index uint64) int {
	if index >= 4 {
		return largestPage
	}
	return smallestPage << (2 * index)
}

// begin begins a walk, instead of the one that is under way, and sends its first
// page; false: the point in time is gone.
func (c *scan) begin(s *iterSeek) bool {
	c.mu.Lock()
	if c.gone || c.over && !s.Open {
		c.mu.Unlock()
		return false
	}
	c.used = time.Now()
	work := false
	if s.Walk > c.newest {
		c.over = false
		c.seek, c.newest, c.allowed = s, s.Walk, s.Allowed
		work = c.take()
	}
	c.mu.Unlock()
	if work {
		c.work(true)
	}
	return true
}

// more lets more pages of a walk be sent; false: the point in time is gone.
func (c *scan) more(m *iterMore) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.used = time.Now()
	if m.Walk == c.newest && m.Allowed > c.allowed {
		c.allowed = m.Allowed
		if c.take() {
			c.l.work.Go(func() { c.work(false) })
		}
	}
	return true
}

// finish frees the point in time, as soon as work is done with it, unless a newer
// walk than that is under way.
func (c *scan) finish(walk uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newest > walk {
		return
	}
	c.over, c.seek = true, nil
	if c.take() {
		c.l.work.Go(func() { c.work(false) })
	}
}

// take tells whether the caller has to see that work runs. mu is held.
func (c *scan) take() bool {
	free := !c.busy
	c.busy = true
	return free
}

// idle tells whether the follower has not been heard of for too long; with amnesty
// set that time begins now.
func (c *scan) idle(now time.Time, amnesty bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if amnesty {
		c.used = now
	}
	return now.Sub(c.used) > iterIdle
}

// work does what there is to do for the scan and ends; with brief set it sends
// one page at most, and leaves the rest to a goroutine. Within the gate it reads
// one page at most, so it does not hold up the end of the term; what it sends
// waits in the server for a follower that does not read, never here.
func (c *scan) work(brief bool) {
	buf := c.l.scans.buffers.Get().(*[]byte)
	defer c.l.scans.buffers.Put(buf)
	for first := true; ; first = false {
		c.mu.Lock()
		ready := c.over || c.seek != nil || c.going && c.sent < c.allowed
		if ready && brief && !first {
			c.mu.Unlock()
			c.l.work.Go(func() { c.work(false) })
			return
		}
		if !ready || !c.l.gate.enter() {
			c.busy = false
			c.mu.Unlock()
			return
		}
		over, seek := c.over, c.seek
		c.seek = nil
		c.mu.Unlock()
		if over {
			done := c.end()
			c.l.gate.exit()
			if done {
				return
			}
			continue
		}
		var err error
		*buf, err = c.page(seek, (*buf)[:0])
		c.l.gate.exit()
		if errors.Is(err, errLost) {
			return // the term ends; so it does not matter that it stays busy
		}
		if err := c.conn.Publish(c.inbox, *buf); err != nil {
			c.l.cancel(fmt.Errorf("send a page: %w", err)) // fails only when the term is over
		}
	}
}

// end frees the point in time and takes the scan out of the table, unless its
// inbox is in use again. It stays there until it is freed, for close to find it.
func (c *scan) end() bool {
	c.free()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		c.gone = true
		c.l.scans.forget(c.inbox)
	}
	return c.gone
}

// page appends the message with the next page of the walk to out. seek is the
// walk, if it has only been asked for.
func (c *scan) page(seek *iterSeek, out []byte) ([]byte, error) {
	var err error
	if seek != nil {
		c.walk, c.sent = seek.Walk, 0
		err = c.start(seek)
	}
	p := iterPage{Walk: c.walk, Index: c.sent}
	c.sent++
	if err == nil {
		out = p.appendHead(out)
		end := len(out) - 1 // where p.End stands
		out, p.End, err = c.pin.Page(out, pageSize(p.Index), wholePair)
		out[end] = byte(p.End)
	}
	if err != nil {
		if err = termOver(err); errors.Is(err, errLost) {
			return out, err
		}
		p.Err = err
		out = p.appendHead(out[:0])
	}
	c.going = p.Err == nil && p.End != snapshot.Last
	return out, nil
}

// start moves to where the walk begins, and fixes the point in time if it is the
// first.
func (c *scan) start(seek *iterSeek) (err error) {
	if seek.Open {
		c.free() // of the last iterator with this inbox
	}
	if c.pin == nil {
		if err := c.l.current(c.l.ctx); err != nil {
			return err
		}
		if c.pin, err = snapshot.NewCursor(c.l.machine, seek.Bounds, c.l.db.opts.Pebble.Comparer); err != nil {
			return err
		}
	}
	return c.pin.Seek(seek.At)
}

// free lets go of the point in time.
func (c *scan) free() {
	if c.pin == nil {
		return
	}
	if err := c.pin.Close(); err != nil {
		c.l.db.log.Debug("party: close an iterator", "err", err) // it has been reported to its follower
	}
	c.pin = nil
}
