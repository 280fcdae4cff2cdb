package party

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestGate_ClosedWhenEmpty(t *testing.T) {
	g := newGate()
	if !g.enter() {
		t.Fatal("a new gate is closed")
	}
	g.exit()
	g.close()
	for range 3 {
		if g.enter() {
			t.Fatal("a closed gate let a goroutine in")
		}
	}
}

func TestGate_CloseWaitsForAllInside(t *testing.T) {
	g := newGate()
	const inside = 3
	for range inside {
		if !g.enter() {
			t.Fatal("a new gate is closed")
		}
	}
	closed := make(chan struct{})
	go func() {
		g.close()
		close(closed)
	}()
	for g.enter() { // until close has begun
		g.exit()
	}
	for range inside {
		// Those who are turned away leave as well, and must not be taken for the last.
		if g.enter() {
			t.Fatal("a gate that is being closed let a goroutine in")
		}
		select {
		case <-closed:
			t.Fatal("close returned with somebody inside")
		default:
		}
		g.exit()
	}
	select {
	case <-closed:
	case <-time.After(15 * time.Second):
		t.Fatal("close did not return although all are out")
	}
}

// TestGate_NobodyInsideOnceClosed: goroutines come and go while it is closed.
func TestGate_NobodyInsideOnceClosed(t *testing.T) {
	for range 20 {
		g := newGate()
		var over atomic.Bool
		var all sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range 4 {
			all.Go(func() {
				begun <- struct{}{}
				for g.enter() {
					if over.Load() {
						t.Error("somebody is inside a closed gate")
					}
					g.exit()
				}
			})
		}
		<-begun
		g.close()
		over.Store(true)
		all.Wait()
	}
}
