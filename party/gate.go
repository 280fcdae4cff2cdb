package party

import (
	"math"
	"sync"
	"sync/atomic"
)

// gate lets goroutines in until it is closed. To pass it costs an atomic add and
// never blocks; a RWMutex would block those who come while it is being closed.
type gate struct {
	inside atomic.Int64 // goroutines inside, less shut once it is closed
	once   sync.Once
	empty  chan struct{} // closed when it is closed and nobody is inside; made by newGate
}

const shut = math.MinInt64 / 2

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter lets a goroutine in until it calls exit; false: the gate is closed.
func (g *gate) enter() bool {
	if g.inside.Add(1) < 0 {
		g.exit()
		return false
	}
	return true
}

func (g *gate) exit() {
	if g.inside.Add(-1) == shut {
		g.once.Do(func() { close(g.empty) })
	}
}

// close lets nobody in any more and returns when all are out. It is called once.
func (g *gate) close() {
	if g.inside.Add(shut) == shut {
		g.once.Do(func() { close(g.empty) })
	}
	<-g.empty
}
