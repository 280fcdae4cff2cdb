package party_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

func subscribe(t testing.TB, db *party.DB, o *party.SubscribeOptions) *party.Subscription {
	t.Helper()
	s, err := db.Subscribe(within(t), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func next(t testing.TB, s *party.Subscription) party.Event {
	t.Helper()
	ev, err := s.Next(within(t))
	must(t, err)
	return ev
}

// text writes the operations of an event in a line.
func text(ev party.Event) string {
	var parts []string
	for _, op := range ev.Ops {
		switch op.Kind {
		case party.OpSet, party.OpMerge:
			parts = append(parts, fmt.Sprintf("%s %s=%s", op.Kind, op.Key, op.Value))
		case party.OpDeleteRange:
			parts = append(parts, fmt.Sprintf("%s %s..%s", op.Kind, op.Key, op.End))
		default:
			parts = append(parts, fmt.Sprintf("%s %s", op.Kind, op.Key))
		}
	}
	return strings.Join(parts, ", ")
}

// batch makes a batch of lines like those of text, without commas in them.
func batch(t testing.TB, ops ...string) *pebble.Batch {
	t.Helper()
	b := new(pebble.Batch)
	for _, op := range ops {
		kind, rest, _ := strings.Cut(op, " ")
		key, value, _ := strings.Cut(rest, "=")
		start, end, _ := strings.Cut(rest, "..")
		var err error
		switch kind {
		case "Set":
			err = b.Set([]byte(key), []byte(value), nil)
		case "Merge":
			err = b.Merge([]byte(key), []byte(value), nil)
		case "Delete":
			err = b.Delete([]byte(rest), nil)
		case "SingleDelete":
			err = b.SingleDelete([]byte(rest), nil)
		case "DeleteRange":
			err = b.DeleteRange([]byte(start), []byte(end), nil)
		default:
			t.Fatalf("operation %q", op)
		}
		must(t, err)
	}
	return b
}

func applyBatch(t testing.TB, db *party.DB, ops ...string) uint64 {
	t.Helper()
	seq, err := db.Apply(within(t), batch(t, ops...), nil)
	must(t, err)
	return seq
}

// pair opens a leader and a follower in this process.
func pair(t testing.TB, o *party.Options) (leader, follower *party.DB) {
	t.Helper()
	dir := newDir(t)
	leader = open(t, dir, o)
	leads(t, leader)
	follower = open(t, dir, o)
	return leader, follower
}

// eachRole runs a test in the leader and in a follower: f gets the handle that
// subscribes and the other one.
func eachRole(t *testing.T, f func(t *testing.T, db, other *party.DB)) {
	t.Run("leader", func(t *testing.T) { l, fo := pair(t, nil); f(t, l, fo) })
	t.Run("follower", func(t *testing.T) { l, fo := pair(t, nil); f(t, fo, l) })
}

// responding returns the status as the leader tells it. Status itself does not wait
// for long.
func responding(t testing.TB, db *party.DB) (s party.Status) {
	t.Helper()
	until(t, "a leader answers", func() bool {
		var err error
		s, err = db.Status(within(t))
		must(t, err)
		return s.Responding
	})
	return s
}

func TestSubscription_DeliversWholeBatches(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		before := time.Now()
		set(t, other, "before", "x")
		s := subscribe(t, db, nil)
		ops := []string{"Set a=1", "Merge m=2", "Delete a", "SingleDelete b", "DeleteRange c..d", "Set e="}
		seq := applyBatch(t, other, ops...)
		set(t, db, "own", "y")
		ev := next(t, s)
		if got := text(ev); ev.Seq != seq || got != strings.Join(ops, ", ") {
			t.Fatalf("event %d: %s", ev.Seq, got)
		}
		if ev.Time.Before(before.Add(-time.Second)) || ev.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("time %v", ev.Time)
		}
		if ev := next(t, s); ev.Seq != seq+1 || text(ev) != "Set own=y" {
			t.Fatalf("event %d: %s", ev.Seq, text(ev))
		}
	})
}

// Events are the caller's: later ones do not write over them.
func TestSubscription_EventsAreOwned(t *testing.T) {
	db, _ := pair(t, nil)
	s := subscribe(t, db, nil)
	var want []string
	var got []party.Event
	for i := range 100 {
		want = append(want, fmt.Sprintf("Set key%d=%s", i, strings.Repeat(fmt.Sprint(i%10), 1000)))
		applyBatch(t, db, want[i])
	}
	for range want {
		ev := next(t, s)
		ev.Ops[0].Key = append(ev.Ops[0].Key, "overwrites nothing"...)[:len(ev.Ops[0].Key)]
		got = append(got, ev)
	}
	for i, ev := range got {
		if text(ev) != want[i] {
			t.Fatalf("event %d is %.50s, want %.50s", i, text(ev), want[i])
		}
	}
}

func TestSubscription_Bounds(t *testing.T) {
	for _, c := range []struct {
		name         string
		comparer     *pebble.Comparer
		lower, upper string
		ops          []string
		want         string // empty: no event
	}{
		{"point inside", nil, "b", "d", []string{"Set b=1", "Set c=2"}, "Set b=1, Set c=2"},
		{"lower is inclusive, upper exclusive", nil, "b", "d", []string{"Set a=1", "Set b=1", "Set czz=2", "Set d=3"}, "Set b=1, Set czz=2"},
		{"all kinds", nil, "b", "d", []string{"Delete a", "Delete b", "SingleDelete c", "SingleDelete e", "Merge a=1", "Merge c=1"},
			"Delete b, SingleDelete c, Merge c=1"},
		{"outside", nil, "b", "d", []string{"Set a=1", "Set e=1"}, ""},
		{"range around", nil, "b", "d", []string{"DeleteRange a..e"}, "DeleteRange b..d"},
		{"range inside", nil, "b", "d", []string{"DeleteRange ba..c"}, "DeleteRange ba..c"},
		{"range over the lower end", nil, "b", "d", []string{"DeleteRange a..c"}, "DeleteRange b..c"},
		{"range over the upper end", nil, "b", "d", []string{"DeleteRange c..e"}, "DeleteRange c..d"},
		{"range up to the lower end", nil, "b", "d", []string{"DeleteRange a..b"}, ""},
		{"range from the upper end", nil, "b", "d", []string{"DeleteRange d..e"}, ""},
		{"range of nothing", nil, "b", "d", []string{"DeleteRange c..c"}, ""},
		{"only a lower bound", nil, "b", "", []string{"Set a=1", "DeleteRange a..z"}, "DeleteRange b..z"},
		{"only an upper bound", nil, "", "b", []string{"Set c=1", "DeleteRange a..z"}, "DeleteRange a..b"},
		{"another order", backwards, "d", "b", []string{"Set d=1", "Set c=1", "Set b=1", "Set e=1", "DeleteRange e..a"},
			"Set d=1, Set c=1, DeleteRange d..b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &party.Options{Pebble: &pebble.Options{Comparer: c.comparer, Logger: silent{}}}
			dir := newDirFor(t, o.Pebble)
			db := open(t, dir, o)
			follower := open(t, dir, o)
			for name, db := range map[string]*party.DB{"leader": db, "follower": follower} {
				t.Run(name, func(t *testing.T) {
					so := &party.SubscribeOptions{LowerBound: []byte(c.lower), UpperBound: []byte(c.upper)}
					s := subscribe(t, db, so)
					// Once while it waits, once out of the files.
					events := make(chan party.Event)
					go func() {
						ev, err := s.Next(within(t))
						if err != nil {
							t.Error(err)
						}
						events <- ev
					}()
					seq := applyBatch(t, db, c.ops...)
					inside := c.lower
					if inside == "" {
						inside = "a"
					}
					end := applyBatch(t, db, "Set "+inside+"=end")
					so.From = seq
					for how, ev := range map[string]party.Event{"waiting": receive(t, "an event", events), "reading": next(t, subscribe(t, db, so))} {
						want, wantSeq := c.want, seq
						if want == "" {
							want, wantSeq = "Set "+inside+"=end", end
						}
						if ev.Seq != wantSeq || text(ev) != want {
							t.Errorf("%s: event %d is %q, want %d, %q", how, ev.Seq, text(ev), wantSeq, want)
						}
					}
				})
			}
		})
	}
	t.Run("empty range", func(t *testing.T) {
		db, _ := pair(t, nil)
		if _, err := db.Subscribe(within(t), &party.SubscribeOptions{LowerBound: []byte("b"), UpperBound: []byte("b")}); err == nil {
			t.Fatal("an empty range was accepted")
		}
	})
}

// From 0 delivers no write that had returned, in any process, and all that begin later.
func TestSubscription_FromNow(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		for i := range 200 {
			before := applyBatch(t, other, fmt.Sprintf("Set before=%d", i))
			s, err := db.Subscribe(within(t), nil)
			must(t, err)
			after := applyBatch(t, other, fmt.Sprintf("Set after=%d", i))
			if ev := next(t, s); ev.Seq != after {
				t.Fatalf("first event is %d, want %d; subscribed behind %d", ev.Seq, after, before)
			}
			must(t, s.Close())
		}
	})
}

func TestSubscription_From(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		var seqs []uint64
		for i := range 10 {
			seqs = append(seqs, applyBatch(t, other, fmt.Sprintf("Set k=%d", i)))
		}
		last := seqs[len(seqs)-1]
		for from := uint64(1); from <= last+1; from++ {
			s := subscribe(t, db, &party.SubscribeOptions{From: from})
			for _, seq := range seqs {
				if seq < from {
					continue
				}
				if ev := next(t, s); ev.Seq != seq {
					t.Fatalf("from %d: got %d, want %d", from, ev.Seq, seq)
				}
			}
			must(t, s.Close())
		}
		for _, from := range []uint64{last + 2, last + 1000, 1 << 63} {
			_, err := db.Subscribe(within(t), &party.SubscribeOptions{From: from})
			var te *party.TruncatedError
			if !errors.Is(err, party.ErrTruncated) || !errors.As(err, &te) || te.Last != last {
				t.Fatalf("from %d: %v", from, err)
			}
		}
	})
}

// Whatever Next waits in ends promptly, with the right error.
func TestSubscription_Ends(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		for name, c := range map[string]struct {
			end  func(s *party.Subscription, cancel func())
			want error
		}{
			"Close":    {func(s *party.Subscription, _ func()) { must(t, s.Close()); must(t, s.Close()) }, party.ErrClosed},
			"context":  {func(_ *party.Subscription, cancel func()) { cancel() }, context.Canceled},
			"DB.Close": {func(_ *party.Subscription, _ func()) { must(t, db.Close()) }, party.ErrClosed},
		} {
			if name == "DB.Close" {
				continue // last
			}
			t.Run(name, func(t *testing.T) { ends(t, db, c.end, c.want) })
		}
		t.Run("DB.Close", func(t *testing.T) {
			idle := subscribe(t, db, nil)
			ends(t, db, func(_ *party.Subscription, _ func()) { must(t, db.Close()) }, party.ErrClosed)
			_, err := idle.Next(within(t))
			want(t, err, party.ErrClosed)
			_, err = db.Subscribe(within(t), nil)
			want(t, err, party.ErrClosed)
			_, err = db.Subscribe(within(t), &party.SubscribeOptions{From: 1})
			want(t, err, party.ErrClosed)
		})
	})
}

func ends(t *testing.T, db *party.DB, end func(s *party.Subscription, cancel func()), target error) {
	t.Helper()
	s := subscribe(t, db, nil)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	set(t, db, "k", "v")
	seen, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		first := true
		for _, err := range s.Events(ctx) {
			if first {
				seen <- err
				first = false
			} else if err != nil {
				ended <- err
			}
		}
		close(ended)
	}()
	must(t, receive(t, "the first event", seen))
	end(s, cancel)
	want(t, receive(t, "Next to end", ended), target)
	if _, ok := <-ended; ok {
		t.Error("Events went on after an error")
	}
}
