package party_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// A put wakes the subscription that waits for it, every time.
func TestSubscription_NoWakeUpIsLost(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		s := subscribe(t, db, nil)
		bounded := subscribe(t, db, &party.SubscribeOptions{LowerBound: []byte("k"), UpperBound: []byte("l")})
		var all sync.WaitGroup
		turns := make(chan uint64)
		for name, s := range map[string]*party.Subscription{"all": s, "bounded": bounded} {
			all.Go(func() {
				for range rounds {
					ev, err := s.Next(within(t))
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					turns <- ev.Seq
				}
			})
		}
		for i := range rounds {
			by := db
			if i%2 == 0 {
				by = other
			}
			b := new(pebble.Batch)
			must(t, b.Set(fmt.Appendf(nil, "k%d", i), nil, nil))
			seq, err := by.Apply(within(t), b, pebble.NoSync)
			must(t, err)
			for range 2 {
				if got := receive(t, fmt.Sprintf("event %d", seq), turns); got != seq {
					t.Fatalf("event %d, want %d", got, seq)
				}
			}
		}
		all.Wait()
	})
}

// Many subscriptions of one handle, some of which nobody reads from, some with
// bounds, see what they should while leaders change.
func TestSubscription_ManyInOneHandle(t *testing.T) {
	a, b := pair(t, nil)
	const subs, rounds = 30, 60
	type seen struct {
		who  int
		seqs []uint64
		err  error
	}
	results := make(chan seen, subs)
	for i := range subs {
		o := &party.SubscribeOptions{}
		if i%3 != 0 {
			o.LowerBound, o.UpperBound = fmt.Appendf(nil, "k%02d", i), fmt.Appendf(nil, "k%02d", i+1)
		}
		s := subscribe(t, b, o)
		if i%5 == 4 {
			continue // nobody reads
		}
		go func() {
			r := seen{who: i}
			for ev, err := range s.Events(within(t)) {
				if r.err = err; err != nil || string(ev.Ops[len(ev.Ops)-1].Value) == "end" {
					break
				}
				r.seqs = append(r.seqs, ev.Seq)
			}
			results <- r
		}()
	}
	want := make(map[int][]uint64)
	for round := range rounds {
		for i := range subs {
			seq := applyBatch(t, a, fmt.Sprintf("Set k%02d=%d", i, round))
			for j := range subs {
				if j%3 == 0 || j == i {
					want[j] = append(want[j], seq)
				}
			}
		}
		if round%20 == 10 {
			must(t, a.Resign(within(t)))
			must(t, b.Resign(within(t)))
		}
	}
	applyBatch(t, a, func() (ops []string) {
		for i := range subs {
			ops = append(ops, fmt.Sprintf("Set k%02d=end", i))
		}
		return ops
	}()...)
	for i := range subs {
		if i%5 == 4 {
			continue
		}
		r := receive(t, "a subscription to end", results)
		must(t, r.err)
		if !slices.Equal(r.seqs, want[r.who]) {
			t.Errorf("subscription %d saw %d events, want %d", r.who, len(r.seqs), len(want[r.who]))
		}
	}
}
