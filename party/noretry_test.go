package party_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

// TestDB_NoRetry: a call that was under way when its leader died fails with
// ErrLeaderLost; its write is there or not, and never twice.
func TestDB_NoRetry(t *testing.T) {
	o := on(nil)
	o.NoRetry = true
	dir := newDirFor(t, o.Pebble)
	leader := start(t, config{Dir: dir, Sum: true})
	db := open(t, dir, o)
	const goroutines = 8
	var acks, losses atomic.Int64
	var acked, lost [goroutines]int
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for g := range goroutines {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch err := db.Merge(within(t), fmt.Append(nil, "m", g), []byte("1"), nil); {
				case err == nil:
					acked[g]++
					acks.Add(1)
				case errors.Is(err, party.ErrLeaderLost):
					lost[g]++
					losses.Add(1)
				default:
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	for range 5 {
		from := acks.Load()
		until(t, "writes go on", func() bool { return acks.Load() > from+50 || t.Failed() })
		leader.kill()
		from = acks.Load()
		until(t, "this handle leads", func() bool { return acks.Load() > from || t.Failed() })
		leader = start(t, config{Dir: dir, Sum: true})
		must(t, db.Resign(within(t)))
	}
	close(stop)
	writers.Wait()
	if losses.Load() == 0 {
		t.Error("nobody was told that a leader was lost with a call under way")
	}
	for g := range goroutines {
		v, err := db.Get(within(t), fmt.Append(nil, "m", g))
		must(t, err)
		n, err := strconv.Atoi(string(v))
		must(t, err)
		if n < acked[g] || n > acked[g]+lost[g] {
			t.Errorf("%d acknowledged, %d lost, but the sum is %d", acked[g], lost[g], n)
		}
	}
	t.Logf("%d acknowledged, %d lost", acks.Load(), losses.Load())
}
