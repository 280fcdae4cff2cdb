package party_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// Clocks of leaders jump forward and back, and differ: the time of an event is that
// of its leader's clock, or that of the event before it if that is later.
func TestOptions_NowMayJump(t *testing.T) {
	dir := newDir(t)
	start := time.Now().Add(-time.Hour).UnixNano()
	var clocks [2]atomic.Int64
	var dbs [2]*party.DB
	for i := range dbs {
		clocks[i].Store(start)
		dbs[i] = open(t, dir, &party.Options{Now: func() time.Time { return time.Unix(0, clocks[i].Load()) }})
	}
	s := subscribe(t, dbs[1], &party.SubscribeOptions{From: 1})
	rng := rand.New(rand.NewPCG(5, 6))
	leader, last := 0, int64(0)
	for i := range 200 {
		clocks[rng.IntN(2)].Add(rng.Int64N(int64(200*time.Hour)) - int64(100*time.Hour))
		if rng.IntN(20) == 0 {
			must(t, dbs[leader].Resign(within(t)))
			leader = 1 - leader
			leads(t, dbs[leader])
		}
		last = max(last, clocks[leader].Load())
		seq := applyBatch(t, dbs[rng.IntN(2)], fmt.Sprintf("Set k=%d", i))
		if ev := next(t, s); ev.Seq != seq || ev.Time.UnixNano() != last {
			t.Fatalf("event %d has the time %s, want %d with %s", ev.Seq, ev.Time, seq, time.Unix(0, last))
		}
	}
}
