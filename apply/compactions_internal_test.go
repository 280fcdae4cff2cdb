package apply

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// waitingDB always has a compaction to run.
type waitingDB struct{ begun atomic.Int64 }

func (*waitingDB) GetAllowedWithoutPermission() int { return 1 }
func (*waitingDB) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	return true, pebble.WaitingCompaction{}
}
func (d *waitingDB) Schedule(pebble.CompactionGrantHandle) bool { d.begun.Add(1); return true }

// However long Pebble takes to open, no compaction begins before.
func TestCompactions_WaitUntilPebbleIsOpen(t *testing.T) {
	c, db := newCompactions(), &waitingDB{}
	c.Register(0, db)
	<-time.After(2 * compactionsHeld)
	c.UpdateGetAllowedWithoutPermission()
	if ok, _ := c.TrySchedule(); ok || db.begun.Load() != 0 {
		t.Error("a compaction has begun")
	}
	close(c.opened)
	eventually(t, "a compaction begins", func() bool { return db.begun.Load() > 0 })
	c.Unregister()
}
