package apply

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pressure is what Pebble has not put in its place.
type pressure struct {
	memtables uint64 // bytes in memory and not in its tables
	sublevels int    // of level 0, which every read has to look at
}

// room keeps the pressure within bounds. Pebble would see to that itself, and let
// whoever writes wait inside of it. But what is written is in the log by then: reads
// wait for it, and so does the end of the term; and while the disk is full nothing ends
// the wait. So its limits are put out of reach, and who applies something asks here first.
type room struct {
	limit pressure
	step  int // bytes that may be applied between two looks at Pebble

	// compaction is the error of the last one, if that found no space on the disk.
	compaction atomic.Pointer[error]

	// Owned by who applies.
	credit int             // bytes of step that are left
	asked  <-chan pressure // the answer that Pebble owes, nil when it owes none
	nudged time.Time       // when a flush was begun to have Pebble try a compaction again
}

// nudgeEvery is how often. Pebble lets the keys of a compaction that failed alone for
// half a minute, and then looks at them when a flush ends, which writes bring about.
const nudgeEvery = 5 * time.Second

// take takes the limits from o, which has its defaults.
func (r *room) take(o *pebble.Options) {
	r.limit = pressure{uint64(o.MemTableStopWritesThreshold) * o.MemTableSize, o.L0StopWritesThreshold}
	r.step = int(min(o.MemTableSize/2, math.MaxInt32))
	o.MemTableStopWritesThreshold, o.L0StopWritesThreshold = 1<<20, math.MaxInt32
}

// compacted notes how a compaction ended.
func (r *room) compacted(err error) {
	switch {
	case err == nil:
		r.compaction.Store(nil)
	case vfs.IsNoSpaceError(err):
		r.compaction.Store(&err)
	}
}

// replayRoom is how many bytes more than twice its limit a replay may have in memory.
const replayRoom = 8 << 20

// forReplay is the limit for a replay. All that was in memory under the last leader
// goes into the memory of this one, with the group that came on top: reads need no
// room on the disk.
func (r *room) forReplay() pressure {
	return pressure{2*r.limit.memtables + replayRoom, math.MaxInt}
}

// Room returns when Pebble has room in memory for another group. It waits for flushes
// and compactions that cannot keep up; a group to be logged only, while the machine is
// Behind, needs none. The goroutine that judges calls it before it appends the group.
//
// The error is that of ctx, what Full returns or a compaction that has to come first
// failed with for want of space, or why Pebble broke.
func (m *Machine) Room(ctx context.Context) error {
	stop := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return m.Full()
	}
	if m.Behind() {
		return stop()
	}
	if err := stop(); err != nil {
		return err
	}
	return m.store.makeRoom(m.store.room.limit, stop)
}

// makeRoom waits until the pressure is below limit, or until stop returns an error.
func (s *store) makeRoom(limit pressure, stop func() error) error {
	r := &s.room
	if r.credit > 0 {
		return nil
	}
	look := time.NewTicker(spacePoll)
	defer look.Stop()
	var eased <-chan struct{} // nil until there was no room
	for {
		if r.asked == nil && eased == nil {
			r.asked = s.ask()
		}
		select {
		case p := <-r.asked:
			r.asked = nil
			low := p.sublevels < limit.sublevels
			if low && p.memtables < limit.memtables {
				r.credit = r.step
				return nil
			}
			if err := r.compaction.Load(); err != nil && !low {
				return errors.Join(fmt.Errorf("compact level 0: %w", *err), s.nudge())
			}
			eased = s.eased
		case <-eased:
			eased = nil
		case <-look.C: // a full disk, and the end of the term, are not announced
			eased = nil
		case <-s.fatal:
			return fmt.Errorf("pebble failed: %w", s.fatalErr)
		}
		if err := stop(); err != nil {
			return err
		}
	}
}

// nudge has Pebble look for compactions, now and then.
func (s *store) nudge() error {
	if time.Since(s.room.nudged) < nudgeEvery {
		return nil
	}
	s.room.nudged = time.Now()
	_, err := s.flush()
	return err
}

// ask asks Pebble, which answers once no manifest is being written: on a full disk
// that may be never.
func (s *store) ask() <-chan pressure {
	answer := make(chan pressure, 1)
	s.calls.Go(func() {
		defer s.forgive()
		m := s.db.Metrics()
		answer <- pressure{m.MemTable.Size, int(m.Levels[0].Sublevels)}
	})
	return answer
}

// apply applies b, for which there is room.
func (s *store) apply(b *pebble.Batch) error {
	s.room.credit -= b.Len()
	// With its write-ahead log off Pebble has nothing to sync here.
	return s.db.Apply(b, pebble.NoSync)
}
