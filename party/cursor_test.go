//go:build unix

package party_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

func TestSubscription_NamedGoesOnBehindTheLastAck(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		named := &party.SubscribeOptions{Name: "worker", LowerBound: []byte("k"), UpperBound: []byte("l")}
		set(t, other, "k0", "before")
		s, err := db.Subscribe(within(t), named)
		must(t, err)
		must(t, s.Close()) // from now on, though nothing was acknowledged
		var seqs []uint64
		for i := range 6 {
			seqs = append(seqs, applyBatch(t, other, fmt.Sprintf("Set k%d=v", i+1)))
		}
		acked := -1
		for round := range 4 {
			on := db
			if round%2 == 1 {
				on = other
			}
			s, err := on.Subscribe(within(t), named)
			must(t, err)
			for i := acked + 1; i < len(seqs); i++ {
				if ev := next(t, s); ev.Seq != seqs[i] {
					t.Fatalf("round %d: event %d, want %d", round, ev.Seq, seqs[i])
				}
			}
			if err := s.Ack(within(t), seqs[5]+1); err == nil {
				t.Fatal("an event was acknowledged that was not delivered")
			}
			acked++
			must(t, s.Ack(within(t), seqs[acked]))
			must(t, s.Ack(within(t), seqs[acked]))
			if acked > 0 {
				must(t, s.Ack(within(t), seqs[acked-1])) // does not move it back
			}
			must(t, s.Close())
			if err := s.Ack(within(t), seqs[5]); !errors.Is(err, party.ErrClosed) {
				t.Fatalf("acknowledged after Close: %v", err)
			}
			// what was acknowledged is nobody's event
			plain := subscribe(t, db, &party.SubscribeOptions{From: seqs[5] + 1})
			set(t, other, "other", "x")
			if ev := next(t, plain); text(ev) != "Set other=x" {
				t.Fatalf("event %s", text(ev))
			}
		}
		must(t, other.DeleteRange(within(t), []byte("a"), []byte("\xff\xff\xff"), nil))
		must(t, db.Resign(within(t)))
		st := responding(t, db)
		if len(st.Cursors) != 1 || st.Cursors[0] != (party.CursorStatus{Name: "worker", Acked: seqs[3], Lag: st.Committed - seqs[3]}) {
			t.Fatalf("cursors %+v, acknowledged %d of %d", st.Cursors, seqs[3], st.Committed)
		}

		// dropped while somebody has it
		s, err = db.Subscribe(within(t), named)
		must(t, err)
		next(t, s)
		must(t, other.DropCursor(within(t), "worker"))
		must(t, other.DropCursor(within(t), "worker"))
		want(t, s.Ack(within(t), seqs[4]), party.ErrCursorLost)
		must(t, s.Close())
		if st = responding(t, db); len(st.Cursors) != 0 {
			t.Fatalf("cursors %+v", st.Cursors)
		}
	})
}

// A name has one owner; the next waits until that closes.
func TestSubscription_NameHasOneOwner(t *testing.T) {
	eachRole(t, func(t *testing.T, db, other *party.DB) {
		named := &party.SubscribeOptions{Name: "one"}
		first, err := db.Subscribe(within(t), named)
		must(t, err)
		for _, on := range []*party.DB{db, other} {
			ctx, cancel := context.WithTimeout(within(t), 50e6)
			_, err := on.Subscribe(ctx, named)
			cancel()
			want(t, err, context.DeadlineExceeded)
		}
		second := make(chan *party.Subscription)
		go func() {
			s, err := other.Subscribe(within(t), named)
			if err != nil {
				t.Error(err)
			}
			second <- s
		}()
		must(t, first.Close())
		must(t, receive(t, "the second owner", second).Close())
		_, err = db.Subscribe(within(t), &party.SubscribeOptions{Name: strings.Repeat("x", party.MaxCursorName+1)})
		want(t, err, party.ErrTooLarge)
		if err := subscribe(t, db, nil).Ack(within(t), 0); err == nil {
			t.Error("a subscription without a name was acknowledged")
		}
	})
}

// The file of a name goes with the name, and never lets two in: whoever has it
// counts.
func TestSubscription_DroppedNameLeavesNoFile(t *testing.T) {
	dir := newDir(t)
	db, other := open(t, dir, nil), open(t, dir, nil)
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "party", "cursors", "*"))
		must(t, err)
		return names
	}
	s, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: "one"})
	must(t, err)
	must(t, other.DropCursor(within(t), "one"))
	if len(files()) != 1 {
		t.Fatalf("%q while somebody has the name", files())
	}
	must(t, s.Close())
	var owners atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		on := []*party.DB{db, other}[i%2]
		all.Go(func() {
			for range 20 {
				if i < 2 {
					if err := on.DropCursor(within(t), "one"); err != nil {
						t.Error(err)
					}
					continue
				}
				s, err := on.Subscribe(within(t), &party.SubscribeOptions{Name: "one"})
				if err != nil {
					t.Error(err)
					return
				}
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d own the name", n)
				}
				owners.Add(-1)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	must(t, other.DropCursor(within(t), "one"))
	if left := files(); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
}

func TestSubscription_TooManyNames(t *testing.T) {
	db, follower := pair(t, nil)
	for i := range party.MaxCursors {
		s, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: fmt.Sprint("name ", i)})
		must(t, err)
		must(t, s.Close())
	}
	for _, on := range []*party.DB{db, follower} {
		_, err := on.Subscribe(within(t), &party.SubscribeOptions{Name: "one more"})
		want(t, err, party.ErrCursors)
	}
	must(t, follower.DropCursor(within(t), "name 7"))
	s, err := follower.Subscribe(within(t), &party.SubscribeOptions{Name: "one more"})
	must(t, err)
	must(t, s.Close())
}

// Retention keeps what a named subscription has not acknowledged, up to a bound.
func TestSubscription_RetentionKeepsWhatIsNotAcked(t *testing.T) {
	db, follower := pair(t, &party.Options{Retention: party.Retention{MaxBytes: 4 << 20, CursorBytes: 16 << 20}})
	s, err := follower.Subscribe(within(t), &party.SubscribeOptions{Name: "slow"})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	seq := applyBatch(t, db, "Set a=b")
	write := func(megabytes int) (first uint64) {
		for range megabytes {
			applyBatch(t, db, "Set x="+string(pattern(1<<20)))
		}
		return responding(t, db).FirstSeq
	}
	if first := write(12); first > seq {
		t.Fatalf("the log begins at %d, and %d was not acknowledged", first, seq)
	}
	if ev := next(t, s); ev.Seq != seq {
		t.Fatalf("event %d, want %d", ev.Seq, seq)
	}
	last := next(t, s)
	for range 5 {
		last = next(t, s)
	}
	must(t, s.Ack(within(t), last.Seq))
	until(t, "what was acknowledged goes", func() bool { return write(1) > seq })
	until(t, "the bound is reached", func() bool { return write(1) > last.Seq+1 })
}

// A named subscription whose keys nobody touches owes no Ack. It holds nothing
// back, and is not overtaken when it comes back.
func TestSubscription_QuietNameMovesOn(t *testing.T) {
	a, b := pair(t, &party.Options{Retention: party.Retention{MaxBytes: 4 << 20, CursorBytes: 8 << 20}})
	for _, x := range []struct {
		name      string
		db, other *party.DB
	}{{"leader", a, b}, {"follower", b, a}} {
		t.Run(x.name, func(t *testing.T) {
			quiet := &party.SubscribeOptions{Name: x.name, LowerBound: []byte("k"), UpperBound: []byte("l")}
			s, err := x.db.Subscribe(within(t), quiet)
			must(t, err)
			seq := applyBatch(t, x.other, "Set k=1")
			if ev := next(t, s); ev.Seq != seq {
				t.Fatalf("event %d, want %d", ev.Seq, seq)
			}
			acked := func() uint64 {
				for _, c := range responding(t, x.db).Cursors {
					if c.Name == x.name {
						return c.Acked
					}
				}
				t.Fatal("the name is forgotten")
				return 0
			}
			// more than is kept for it, while it waits
			outrun := func(s *party.Subscription, how string, gone func(first uint64) bool) {
				t.Helper()
				ended := make(chan error, 1)
				ctx, cancel := context.WithCancel(within(t))
				go func() {
					_, err := s.Next(ctx)
					ended <- err
				}()
				until(t, how, func() bool {
					applyBatch(t, x.other, "Set x="+string(pattern(1<<20)))
					return gone(responding(t, x.db).FirstSeq)
				})
				cancel()
				want(t, receive(t, "Next to end", ended), context.Canceled)
			}
			before := acked()
			outrun(s, "what is not acknowledged goes after all", func(first uint64) bool { return first > before+4 })
			if got := acked(); got != before {
				t.Fatalf("the cursor went from %d to %d, and %d was not acknowledged", before, got, seq)
			}
			must(t, s.Ack(within(t), seq))
			outrun(s, "the log and the cursor go on", func(first uint64) bool { return first > seq+30 && acked() >= first })
			must(t, s.Ack(within(t), seq)) // does not move it back
			must(t, s.Close())

			s, err = x.other.Subscribe(within(t), quiet)
			must(t, err)
			seq = applyBatch(t, x.db, "Set k=2")
			if ev := next(t, s); ev.Seq != seq {
				t.Fatalf("event %d, want %d", ev.Seq, seq)
			}
			must(t, s.Close())
			if got := acked(); got >= seq {
				t.Fatalf("the cursor is at %d, and %d was not acknowledged", got, seq)
			}
		})
	}
}

// Workers that share a name are killed again and again, as is whoever leads. One
// at a time gets events; each begins behind the last Ack, and nothing is missed.
func TestSubscription_WorkersAreKilled(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	dir, journals := newDir(t), t.TempDir()
	c := &crew{t: t, dir: dir}
	journal := []byte(filepath.Join(journals, "work"))
	job := request{Op: "work", Key: []byte("the work"), Value: journal}
	for range 3 {
		c.hire(job)
	}
	c.hire(request{Op: "pump", N: 2, Value: []byte(filepath.Join(journals, "writer"))})
	rng := rand.New(rand.NewPCG(3, 4))
	for range kills {
		size := len(readJournal(t, string(journal)))
		until(t, "somebody works", func() bool { return len(readJournal(t, string(journal))) > size+rng.IntN(100) })
		i := rng.IntN(3)
		if rng.IntN(4) == 0 {
			c.killLeader()
			continue
		}
		c.procs[i].kill()
		c.begin(i)
	}
	c.procs[3].do(request{Op: "stop"})
	if a := receive(t, "the writer to stop", c.done[3]); a.Err != "" {
		t.Fatal(a.Err)
	}
	c.procs[3].do(request{Op: "set", Key: []byte("the end")})
	for i := range 3 {
		if a := receive(t, "a worker to see the end", c.done[i]); a.Err != "" {
			t.Fatalf("worker: %s", a.Err)
		}
	}

	hashes := make(map[uint64]uint64)
	var all []uint64
	for _, e := range entries(t, dir) {
		hashes[e[0]] = e[1]
		all = append(all, e[0])
	}
	seen := make(map[uint64]bool)
	acked, expect, owners := uint64(0), 0, 0
	for _, pair := range readJournal(t, string(journal)) {
		switch seq, hash := pair[0], pair[1]; {
		case seq == 0: // another owner. The Ack that its predecessor died in may have been carried out
			owners++
			expect = -1
		case hash == 0:
			acked = seq
		default:
			if expect < 0 {
				for expect = 0; expect < len(all) && all[expect] <= acked; expect++ {
				}
				for limit := expect + 3; expect < limit && all[expect] != seq; expect++ {
				}
			}
			if all[expect] != seq || hashes[seq] != hash {
				t.Fatalf("a worker got %d, want %d; acknowledged was %d", seq, all[expect], acked)
			}
			expect++
			seen[seq] = true
		}
	}
	for _, seq := range all {
		if !seen[seq] {
			t.Fatalf("nobody got %d", seq)
		}
	}
	t.Logf("%d events, %d owners", len(all), owners)
}
