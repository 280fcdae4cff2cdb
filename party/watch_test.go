package party_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// view is what somebody makes of what a Watcher gives.
type view map[string]string

func (v view) apply(ops []party.Op) {
	for _, op := range ops {
		switch op.Kind {
		case party.OpSet:
			v[string(op.Key)] = string(op.Value)
		case party.OpDelete, party.OpSingleDelete:
			delete(v, string(op.Key))
		case party.OpDeleteRange:
			maps.DeleteFunc(v, func(k, _ string) bool { return k >= string(op.Key) && k < string(op.End) })
		}
	}
}

func (v view) within(lower, upper string) view {
	v = maps.Clone(v)
	maps.DeleteFunc(v, func(k, _ string) bool { return k < lower || upper != "" && k >= upper })
	return v
}

// watchHistory is what one writer did: the state after each sequence number.
type watchHistory struct {
	seqs   []uint64
	states []view
}

func (h *watchHistory) last() view { return h.states[len(h.states)-1] }

// at returns the state as of a sequence number.
func (h *watchHistory) at(seq uint64) view {
	i := 0
	for i+1 < len(h.seqs) && h.seqs[i+1] <= seq {
		i++
	}
	return h.states[i]
}

// step writes a random batch.
func (h *watchHistory) step(t *testing.T, rng *rand.Rand, db *party.DB, end string) {
	t.Helper()
	key := func() string { return fmt.Sprintf("%c%d", 'a'+rng.IntN(6), rng.IntN(10)) }
	state := maps.Clone(h.last())
	var b pebble.Batch
	do := func(op party.Op, err error) {
		must(t, err)
		state.apply([]party.Op{op})
	}
	for range 1 + rng.IntN(4) {
		k := []byte(key())
		switch n := rng.IntN(10); {
		case n < 6:
			v := fmt.Append(nil, rng.IntN(1000))
			do(party.Op{Kind: party.OpSet, Key: k, Value: v}, b.Set(k, v, nil))
		case n < 8:
			do(party.Op{Kind: party.OpDelete, Key: k}, b.Delete(k, nil))
		default:
			to := []byte(key())
			do(party.Op{Kind: party.OpDeleteRange, Key: k, End: to}, b.DeleteRange(k, to, nil))
		}
	}
	if end != "" {
		do(party.Op{Kind: party.OpSet, Key: []byte(end), Value: []byte("end")}, b.Set([]byte(end), []byte("end"), nil))
	}
	o := pebble.NoSync
	if rng.IntN(5) == 0 {
		o = pebble.Sync
	}
	seq, err := db.Apply(within(t), &b, o)
	must(t, err)
	h.seqs, h.states = append(h.seqs, seq), append(h.states, state)
}

// watched is what a Watcher has shown up to the end.
type watched struct {
	ready  uint64
	states map[uint64]view // as of the marker and of each event
	err    error
}

func follow(w *party.Watcher, ctx context.Context) (got watched) {
	got.states = make(map[uint64]view)
	v, last := view{}, ""
	for c, err := range w.All(ctx) {
		if err != nil {
			got.err = err
			return got
		}
		switch c.Kind {
		case party.ChangeKey:
			if got.ready != 0 || string(c.Key) <= last {
				got.err = fmt.Errorf("key %q behind %q, ready at %d", c.Key, last, got.ready)
				return got
			}
			last = string(c.Key)
			v[last] = string(c.Value)
		case party.ChangeReady:
			if got.ready != 0 {
				got.err = errors.New("ready twice")
				return got
			}
			got.ready = c.Seq
		case party.ChangeEvent:
			if got.ready == 0 || c.Seq <= got.ready || c.Seq != c.Event.Seq {
				got.err = fmt.Errorf("event %d, ready at %d", c.Seq, got.ready)
				return got
			}
			v.apply(c.Event.Ops)
		}
		if c.Kind != party.ChangeKey {
			got.states[c.Seq] = maps.Clone(v)
			for _, value := range v {
				if value == "end" {
					return got
				}
			}
		}
	}
	return got
}

// The view that a Watcher lets one build is the database's state, at the marker,
// after each event and at the end, whatever is written and whoever leads.
func TestWatcher_Model(t *testing.T) {
	seeds := 1000
	switch {
	case testing.Short():
		seeds = 60
	case raceEnabled:
		seeds = 250 // they say more about the model than about races
	}
	const perDir = 50
	for from := 0; from < seeds; from += perDir {
		a, b := pair(t, nil)
		h := &watchHistory{seqs: []uint64{0}, states: []view{{}}}
		for seed := from; seed < min(from+perDir, seeds); seed++ {
			rng := rand.New(rand.NewPCG(uint64(seed), 5))
			dbs := []*party.DB{a, b}
			lower, upper := "", ""
			if rng.IntN(3) > 0 {
				lower, upper = string(rune('a'+rng.IntN(3))), string(rune('d'+rng.IntN(4)))
			}
			end := lower + "end"
			if lower == "" {
				end = "b"
			}
			for range rng.IntN(10) {
				h.step(t, rng, dbs[rng.IntN(2)], "")
			}
			by, other := dbs[rng.IntN(2)], rng.IntN(20)
			done := make(chan watched, 1)
			go func() {
				ctx := within(t)
				w, err := by.Watch(ctx, &party.WatchOptions{LowerBound: []byte(lower), UpperBound: []byte(upper)})
				if err != nil {
					done <- watched{err: err}
					return
				}
				got := follow(w, ctx)
				got.err = errors.Join(got.err, w.Close())
				done <- got
			}()
			for i := range 20 {
				h.step(t, rng, dbs[rng.IntN(2)], "")
				if i == other && seed%3 == 0 {
					must(t, a.Resign(within(t)))
					must(t, b.Resign(within(t)))
				}
			}
			h.step(t, rng, dbs[rng.IntN(2)], end)
			got := receive(t, "the watcher to see the end", done)
			if got.err != nil {
				t.Fatalf("seed %d: %v", seed, got.err)
			}
			for seq, v := range got.states {
				if want := h.at(seq).within(lower, upper); !maps.Equal(v, want) {
					t.Fatalf("seed %d: at %d, ready at %d: %v, want %v", seed, seq, got.ready, v, want)
				}
			}
			if seq := h.seqs[len(h.seqs)-1]; got.states[seq] == nil {
				t.Fatalf("seed %d: nothing seen as of %d, the end", seed, seq)
			}
			// The next one begins without the mark of the end.
			var clear pebble.Batch
			must(t, clear.Delete([]byte(end), nil))
			seq, err := a.Apply(within(t), &clear, nil)
			must(t, err)
			state := maps.Clone(h.last())
			delete(state, end)
			h.seqs, h.states = append(h.seqs, seq), append(h.states, state)
		}
		closeDB(t, a)
		closeDB(t, b)
	}
}

// It can be closed anywhere, and ends with its contexts and its handle.
func TestWatcher_Ends(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		for i := range 5 {
			set(t, other, fmt.Sprint("k", i), "v")
		}
		for n := range 8 {
			w, err := db.Watch(within(t), nil)
			must(t, err)
			for i := range n {
				if i == 6 {
					set(t, other, "another", "v")
				}
				c, err := w.Next(within(t))
				must(t, err)
				if want := []party.ChangeKind{party.ChangeKey, party.ChangeReady, party.ChangeEvent}[max(0, i-4)]; n < 7 && c.Kind != want {
					t.Fatalf("change %d is %s, want %s", i, c.Kind, want)
				}
			}
			ctx, cancel := context.WithCancel(within(t))
			cancel()
			_, err = w.Next(ctx)
			want(t, err, context.Canceled)
			must(t, w.Close())
			must(t, w.Close())
			if n > 5 {
				_, err = w.Next(within(t))
				want(t, err, party.ErrClosed)
				must(t, db.Delete(within(t), []byte("another"), nil))
			}
		}
		w, err := db.Watch(within(t), &party.WatchOptions{LowerBound: []byte("x")})
		must(t, err)
		c, err := w.Next(within(t))
		if err != nil || c.Kind != party.ChangeReady {
			t.Fatal(c.Kind, err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := w.Next(within(t))
			ended <- err
		}()
		must(t, db.Close())
		want(t, receive(t, "Next to end", ended), party.ErrClosed)
		must(t, w.Close())
		_, err = db.Watch(within(t), nil)
		want(t, err, party.ErrClosed)
	})
}
