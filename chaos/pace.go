package chaos

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A subscription that has stopped to deliver is in order as far as it went: no
// comparison with the log finds it. So each process knows what its own calls were
// told to have committed, and looks whether its subscriptions get there.

const (
	// paceTick is how often a process looks. A ticker does not make up for ticks that
	// came too early: the time that a process was stopped, or had no processor, is one.
	paceTick = 100 * time.Millisecond
	// paceSilent is how many looks in a row may find that nothing was delivered though
	// something is due.
	paceSilent = 50
)

// pace is how far a lane has delivered, of what its process knows to be there.
type pace struct {
	due       *atomic.Uint64 // of all lanes of the workload in this process
	delivered atomic.Uint64
	follows   atomic.Bool   // it delivers
	silent    atomic.Bool   // it was found to have stopped; for good
	moved     chan struct{} // capacity 1: one of those may have changed

	// Of look, which one goroutine calls.
	seen  uint64
	looks int // since seen
}

func newPace(due *atomic.Uint64) *pace { return &pace{due: due, moved: make(chan struct{}, 1)} }

// knows says that all up to seq is due.
func (p *pace) knows(seq uint64) {
	for {
		due := p.due.Load()
		if due >= seq || p.due.CompareAndSwap(due, seq) {
			return
		}
	}
}

func (p *pace) reached(seq uint64) {
	p.delivered.Store(seq)
	p.follows.Store(true)
	p.wake()
}

// leave says that it delivers no more, and need not.
func (p *pace) leave() {
	p.follows.Store(false)
	p.wake()
}

func (p *pace) wake() {
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// look is called at each tick. It returns an error once, when too many of them
// have passed in silence.
func (p *pace) look() error {
	due, delivered := p.due.Load(), p.delivered.Load()
	if !p.follows.Load() || p.silent.Load() || delivered >= due || delivered != p.seen {
		p.seen, p.looks = delivered, 0
		return nil
	}
	if p.looks++; p.looks < paceSilent {
		return nil
	}
	p.silent.Store(true)
	p.wake()
	return fmt.Errorf("the subscription has delivered %d and then nothing for %d looks, one in %s, though this process knows that %d has committed",
		delivered, paceSilent, paceTick, due)
}

// arrive returns when all that is due now was delivered, or never will be. Somebody
// calls look meanwhile.
func (p *pace) arrive() {
	for due := p.due.Load(); p.follows.Load() && !p.silent.Load() && p.delivered.Load() < due; {
		<-p.moved
	}
}

// attend looks after the paces of the lanes until stop is closed.
func (w *worker) attend(lanes []*Lane, stop <-chan struct{}) {
	tick := time.NewTicker(paceTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		for _, l := range lanes {
			if err := l.pace.look(); err != nil {
				w.out.trouble(l, err)
			}
		}
	}
}
