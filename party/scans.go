package party

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// scans are the points in time that a leader holds for iterators: its
// followers' and those of its own process. They end with the term at the latest.
type scans struct {
	l       *leader
	buffers sync.Pool // of *[]byte, for pages
	own     pins      // of iterators of this process

	mu      sync.Mutex
	conn    *nats.Conn       // for pages; nil until there is an iterator of a follower
	open    map[string]*scan // by inbox
	watched bool             // watch runs
}

const (
	// iterIdle is how long the leader holds a point in time for an iterator that
	// does not move.
	iterIdle = time.Minute
	// iterTouch is how often an iterator that moves says so, if it has no other
	// reason to write.
	iterTouch = iterIdle / 3
	// iterSweep is how often the leader looks for iterators that are idle, or whose
	// process is gone.
	iterSweep = time.Second
)

func newScans(l *leader) *scans {
	return &scans{
		l:       l,
		buffers: sync.Pool{New: func() any { return new([]byte) }},
		open:    make(map[string]*scan),
	}
}

// handle does what a message of an iterator says: it reads one page at most, and
// leaves the rest to goroutines that live as long as there is something to do. It
// keeps body.
func (c *scans) handle(t msgType, body []byte) error {
	switch t {
	case msgIterSeek:
		var s iterSeek
		if err := s.decode(body); err != nil {
			return err
		}
		return c.seek(&s)
	case msgIterMore:
		var m iterMore
		if err := m.decode(body); err != nil {
			return err
		}
		if cur := c.find(m.Inbox); (cur == nil || !cur.more(&m)) && m.Walk > 0 {
			return c.lost(m.Inbox, m.Walk) // somebody waits for a page
		}
	case msgIterClose:
		var m iterClose
		if err := m.decode(body); err != nil {
			return err
		}
		// It may overtake the seek of a caller that left in the middle of it. Then
		// sweep finds that the inbox is gone.
		if cur := c.find(m.Inbox); cur != nil {
			cur.finish(m.Walk)
		}
	}
	return nil
}

func (c *scans) seek(s *iterSeek) error {
	for {
		cur := c.find(s.Inbox)
		if cur == nil && s.Open {
			var err error
			if cur, err = c.add(s.Inbox); err != nil {
				return err
			}
		}
		if cur != nil && cur.begin(s) {
			return nil
		}
		if cur == nil || !s.Open {
			return c.lost(s.Inbox, s.Walk)
		}
		// It has just been taken out of the table.
	}
}

// lost tells an iterator that its point in time is gone.
func (c *scans) lost(inbox string, walk uint64) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	p := iterPage{Walk: walk, Err: fmt.Errorf("%w: the iterator did not move for %s", ErrSnapshotLost, iterIdle)}
	return conn.Publish(inbox, p.appendHead(nil))
}

// add returns the scan of an inbox, a new one if there is none.
func (c *scans) add(inbox string) (*scan, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cur := c.open[inbox]
	if cur == nil {
		cur = &scan{l: c.l, conn: conn, inbox: inbox}
		c.open[inbox] = cur
	}
	if !c.watched {
		c.watched = true
		c.l.work.Go(c.watch)
	}
	return cur, nil
}

// connect returns the connection for pages. They have one of their own, so that
// the answers to writes do not wait behind them, with room for a few, so that the
// next is read while those before are sent.
func (c *scans) connect() (*nats.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		conn, err := c.l.station.server.Connect(nats.WriteBufferSize(4 * largestPage))
		if err != nil {
			return nil, errLost // the server is closed
		}
		c.conn = conn
	}
	return c.conn, nil
}

func (c *scans) find(inbox string) *scan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[inbox]
}

// forget takes out a scan that holds nothing any more.
func (c *scans) forget(inbox string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, inbox)
}

// count returns how many iterators there are.
func (c *scans) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open) + c.own.count()
}

// watch sweeps while there are iterators of followers.
func (c *scans) watch() {
	tick := time.NewTicker(iterSweep)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-c.l.ctx.Done():
			return
		case now := <-tick.C:
			// A process that was stopped itself could not hear them.
			c.sweep(now, now.Sub(last) > iterIdle/2)
			last = now
		}
		c.mu.Lock()
		if len(c.open) == 0 {
			c.watched = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// sweep frees what belongs to iterators that do not move, unless amnesty is set,
// and to those whose inbox is gone: with the connection of a process that died,
// the server forgets its subscriptions.
func (c *scans) sweep(now time.Time, amnesty bool) {
	c.mu.Lock()
	open := slices.Collect(maps.Values(c.open))
	c.mu.Unlock()
	for _, cur := range open {
		if cur.idle(now, amnesty) || !c.l.station.server.Subscribed(cur.inbox) {
			cur.finish(math.MaxUint64)
		}
	}
}

// close lets go of all points in time, as Pebble cannot be closed before, and tells
// whether that came to an end. It does unless a goroutine is stuck in a Pebble that
// broke; then they move no more, and are given up with it.
func (c *scans) close() (freed bool) {
	if c.conn != nil {
		c.conn.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, cur := range c.open {
			cur.free()
		}
		c.own.close()
	}()
	if freed = c.l.finished(done); !freed {
		c.own.revoke()
	}
	return freed
}
