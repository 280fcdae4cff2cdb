package apply

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/internal/nospace"
)

// pressure is what Pebble has not put in its place.
type pressure struct {
	memtables uint64 // bytes in memory and not in its tables
	sublevels int    // of level 0, which every read has to look at
}

func (p pressure) below(limit pressure) bool {
	return p.memtables < limit.memtables && p.sublevels < limit.sublevels
}

// room keeps the pressure within bounds. Pebble would see to that itself, and let
// whoever writes wait inside of it. But what is written is in the log by then: reads
// wait for it, and so does the end of the term; and while the disk is full nothing ends
// the wait. So its limits are put out of reach, and who applies something asks here first.
type room struct {
	limit pressure
	step  int // bytes that are applied between two looks at Pebble

	// compaction is the error of the last one, if that found no space on the disk.
	compaction atomic.Pointer[error]

	// Owned by who applies.
	known  pressure        // what Pebble said last, and what was applied since
	since  int             // bytes applied since it was asked last
	asked  <-chan pressure // the answer that it owes, nil when it owes none
	nudged time.Time       // see nudge
}

// take takes the limits from o, which has its defaults.
func (r *room) take(o *pebble.Options) {
	// Pebble looks when a memtable is full, we while it fills, when it counts already.
	r.limit = pressure{uint64(o.MemTableStopWritesThreshold+1) * o.MemTableSize, o.L0StopWritesThreshold}
	r.step = int(min(o.MemTableSize/2, math.MaxInt32))
	o.MemTableStopWritesThreshold, o.L0StopWritesThreshold = 1<<20, math.MaxInt32
}

// compacted notes how a compaction ended.
func (r *room) compacted(err error) {
	switch {
	case err == nil:
		r.compaction.Store(nil)
	case nospace.Is(err):
		r.compaction.Store(&err)
	}
}

// Room returns when Pebble has room in memory for another group. It waits for flushes
// and compactions that cannot keep up; a group to be logged only, while the machine is
// Behind, needs none. The goroutine that judges calls it before it appends the group.
//
// The error is that of ctx, what Full returns, what a flush failed with that has to
// come first, or a compaction for want of space, or why Pebble broke.
func (m *Machine) Room(ctx context.Context) error {
	if err := m.Full(); err != nil {
		return err
	}
	if m.Behind() {
		return ctx.Err()
	}
	s := m.store
	return s.makeRoom(s.room.limit, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.unflushable()
	})
}

// unflushable returns why the last flush failed.
func (s *store) unflushable() error {
	if err := s.fs.full.Load(); err != nil {
		return *err
	}
	if err := s.fs.failed.Load(); err != nil {
		return fmt.Errorf("flush the state: %w", *err)
	}
	return nil
}

// roomToReplay is makeRoom for what is in the log already. It does not wait for flushes
// that fail: then all of that goes into memory, where the last leader had it, and reads
// go on.
func (m *Machine) roomToReplay(stop func() error) error {
	err := m.store.makeRoom(pressure{m.store.room.limit.memtables, math.MaxInt}, func() error {
		if err := stop(); err != nil {
			return err
		}
		if m.store.unflushable() != nil {
			return errUnbounded
		}
		return nil
	})
	if errors.Is(err, errUnbounded) {
		return nil
	}
	return err
}

var errUnbounded = errors.New("apply: no room is waited for")

// makeRoom waits until the pressure is below limit, or until stop returns an error. It
// does not wait for Pebble to say what it is unless that matters.
func (s *store) makeRoom(limit pressure, stop func() error) error {
	r := &s.room
	select {
	case p := <-r.asked:
		r.answered(p)
	default:
	}
	if r.since >= r.step {
		s.ask()
	}
	if r.known.below(limit) {
		return nil
	}
	look := time.NewTicker(spacePoll)
	defer look.Stop()
	var eased <-chan struct{} // nil until there was no room
	stalled := false
	defer func() {
		if stalled {
			s.opts.EventListener.WriteStallEnd()
		}
	}()
	for {
		if err := stop(); err != nil {
			return err
		}
		if eased == nil {
			s.ask()
		}
		select {
		case p := <-r.asked:
			r.answered(p)
			if r.known.below(limit) {
				return nil
			}
			if r.since > 0 { // it may be in there twice
				continue
			}
			eased = s.eased
			reason := "memtable count limit reached" // in Pebble's words
			if r.known.sublevels >= limit.sublevels {
				reason = "L0 file count limit exceeded"
				if err := s.nudge(); err != nil {
					return err
				}
				if err := r.compaction.Load(); err != nil {
					return fmt.Errorf("compact level 0: %w", *err)
				}
			}
			if !stalled {
				stalled = true
				s.opts.EventListener.WriteStallBegin(pebble.WriteStallBeginInfo{Reason: reason})
			}
		case <-eased:
			eased = nil
		case <-look.C: // a full disk, and the end of the term, are not announced
			eased = nil
		case <-s.fatal:
			return fmt.Errorf("pebble failed: %w", s.fatalErr)
		}
	}
}

// nudgeEvery is how often Pebble is made to look for compactions while writes wait
// for one. It lets the keys of one that failed alone for half a minute, and then looks
// when a flush ends, which nobody's writes bring about.
const nudgeEvery = 5 * time.Second

// nudge begins a flush, now and then.
func (s *store) nudge() error {
	if time.Since(s.room.nudged) < nudgeEvery {
		return nil
	}
	s.room.nudged = time.Now()
	_, err := s.flush()
	return err
}

// ask asks Pebble, unless it owes an answer. That comes once no manifest is being
// written: on a full disk it may be never.
func (s *store) ask() {
	if s.room.asked != nil {
		return
	}
	answer := make(chan pressure, 1)
	s.room.asked, s.room.since = answer, 0
	s.calls.Go(func() {
		defer s.forgive()
		m := s.db.Metrics()
		answer <- pressure{m.MemTable.Size, int(m.Levels[0].Sublevels)}
	})
}

// answered takes Pebble's answer, which may be older than what was applied since.
func (r *room) answered(p pressure) {
	r.asked = nil
	r.known = pressure{p.memtables + uint64(r.since), p.sublevels}
}

// entryOverhead is about how many bytes of a memtable an entry takes beside its own.
const entryOverhead = 64

// apply applies b, for which there is room.
func (s *store) apply(b *pebble.Batch) error {
	n := b.Len() + entryOverhead*int(b.Count())
	s.room.since += n
	s.room.known.memtables += uint64(n)
	// With its write-ahead log off Pebble has nothing to sync here.
	return s.db.Apply(b, pebble.NoSync)
}
