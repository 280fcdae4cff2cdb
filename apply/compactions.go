package apply

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactionsHeld is for how long after its opening Pebble compacts nothing. A
// failover needs the processor for those who wait; and Pebble's Open, on its way
// out, waits for a compaction that it has begun on its way in.
const compactionsHeld = 250 * time.Millisecond

// compactions is a pebble.CompactionScheduler: as many at a time as Pebble asks
// for, like its own, but none in the beginning.
type compactions struct {
	db      pebble.DBForCompaction // set by Register, before any other call
	stop    chan struct{}
	stopped chan struct{} // closed when the granting goroutine has ended
	poke    chan struct{} // capacity 1: there may be something to grant
	opened  chan struct{} // closed when Pebble is open: its syncs are not put off any more, see settling

	mu      sync.Mutex
	held    bool
	running int
}

func newCompactions() *compactions {
	return &compactions{
		held: true, opened: make(chan struct{}),
		stop: make(chan struct{}), stopped: make(chan struct{}), poke: make(chan struct{}, 1),
	}
}

// Register begins to grant compactions to db.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.db = db
	go c.grant()
}

// Unregister returns when no call to the DB is under way, and none comes any
// more.
func (c *compactions) Unregister() {
	c.take(func() bool { c.held = true; return false })
	close(c.stop)
	<-c.stopped
}

// discard does that for a Pebble that has not opened: it may have come as far as
// Register.
func (c *compactions) discard() {
	if c.db != nil {
		c.Unregister()
	}
}

// TrySchedule grants a compaction at once, if one more is allowed.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	return c.take(c.allowed), c
}

// UpdateGetAllowedWithoutPermission is called when more may be allowed than
// before. The DB's mutex is held.
func (c *compactions) UpdateGetAllowedWithoutPermission() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// Started, MeasureCPU, CumulativeStats and Done belong to a compaction that was
// granted.
func (c *compactions) Started()                                          {}
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

func (c *compactions) Done() {
	c.giveBack()
	c.UpdateGetAllowedWithoutPermission()
}

func (c *compactions) allowed() bool {
	return !c.held && c.running < c.db.GetAllowedWithoutPermission()
}

// take counts one more compaction if ok says so.
func (c *compactions) take(ok func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok() {
		return false
	}
	c.running++
	return true
}

func (c *compactions) giveBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
}

// grant offers what is allowed to the DB, which remembers that it was refused a
// compaction and does not ask again.
func (c *compactions) grant() {
	defer close(c.stopped)
	opened := c.opened
	var hold <-chan time.Time
	for {
		select {
		case <-c.stop:
			return
		case <-opened:
			opened, hold = nil, time.After(compactionsHeld)
		case <-hold:
			c.take(func() bool { c.held = false; return false })
		case <-c.poke:
		}
		for c.take(c.allowed) {
			if waiting, _ := c.db.GetWaitingCompaction(); !waiting || !c.db.Schedule(c) {
				c.giveBack()
				break
			}
		}
	}
}
