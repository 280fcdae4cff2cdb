package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Old log whose header is damaged keeps nobody from using the database. Who reads there is told, the operator is, and it is
// trimmed like the rest.
func TestDB_OldLogIsDamaged(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, nil)
	for i := range 40 {
		must(t, db.Set(within(t), fmt.Appendf(nil, "k%d", i), pattern(200<<10), pebble.NoSync))
	}
	must(t, db.Close())
	segments, err := filepath.Glob(dir + "/party/log/*.log")
	must(t, err)
	if len(segments) < 4 {
		t.Fatalf("%d segments", len(segments))
	}
	b, err := os.ReadFile(segments[1])
	must(t, err)
	copy(b, pattern(128))
	must(t, os.WriteFile(segments[1], b, 0o600))

	var said bytes.Buffer
	db = open(t, dir, &party.Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	v, err := db.Get(within(t), []byte("k39"))
	must(t, err)
	if !bytes.Equal(v, pattern(200<<10)) {
		t.Fatal("a value is damaged")
	}
	must(t, db.Set(within(t), []byte("k"), []byte("v"), pebble.Sync))
	s := subscribe(t, db, &party.SubscribeOptions{From: 2})
	for err == nil {
		_, err = s.Next(within(t))
	}
	want(t, err, party.ErrCorrupt)
	first, err := db.Trim(within(t), 1<<62)
	must(t, err)
	if first < 30 {
		t.Errorf("trimmed to %d", first)
	}
	must(t, db.Close())
	if n := strings.Count(said.String(), filepath.Base(segments[1])); n != 1 {
		t.Errorf("told %d times:\n%s", n, &said)
	}
}

func TestDB_Trim(t *testing.T) {
	dir := newDir(t)
	p := start(t, config{Dir: dir})
	db := open(t, dir, nil) // follows
	const keys = 60
	var seqs []uint64
	for i := range keys {
		seqs = append(seqs, applyBatch(t, db, fmt.Sprintf("Set k%d=%s", i, pattern(200<<10))))
	}
	trim := func(before uint64) uint64 {
		t.Helper()
		first, err := db.Trim(within(t), before)
		must(t, err)
		s := responding(t, db)
		if s.FirstSeq != first {
			t.Fatalf("trimmed to %d, the log begins at %d", first, s.FirstSeq)
		}
		return first
	}
	if first := trim(0); first != 1 {
		t.Fatalf("nothing to trim, and the log begins at %d", first)
	}
	late := subscribe(t, db, &party.SubscribeOptions{From: seqs[0]})
	middle := seqs[keys/2]
	first := trim(middle)
	if first > middle || first+15 < middle {
		t.Fatalf("trimmed to %d, asked for %d", first, middle)
	}
	if again := trim(middle - 1); again != first {
		t.Fatalf("trimmed to %d, then to %d", first, again)
	}
	if ev := next(t, subscribe(t, db, &party.SubscribeOptions{From: first})); ev.Seq != first {
		t.Fatalf("the log begins at %d, its first event is %d", first, ev.Seq)
	}
	want := seqs[0]
	for ; ; want++ {
		ev, err := late.Next(within(t))
		var ce *party.CompactedError
		if errors.As(err, &ce) && ce.First == first {
			break
		}
		if err != nil || ev.Seq != want {
			t.Fatalf("event %d, %v; want %d or to hear that the log begins at %d", ev.Seq, err, want, first)
		}
	}

	// The process that led is killed; this one leads, and trims all it can.
	p.kill()
	leads(t, db)
	if all := trim(1 << 62); all <= middle || all > seqs[keys-1] {
		t.Fatalf("trimmed to %d, the last is %d", all, seqs[keys-1])
	}
	for i := range keys {
		v, err := db.Get(within(t), fmt.Appendf(nil, "k%d", i))
		must(t, err)
		if !bytes.Equal(v, pattern(200<<10)) {
			t.Fatalf("key %d is damaged", i)
		}
	}
	must(t, db.Close())
	if _, err := db.Trim(within(t), 1); !errors.Is(err, party.ErrClosed) {
		t.Fatal(err)
	}
}

// Retention by size and by age and an operator's Trim, all at once, under two
// subscriptions: each sees everything in order, from where the log begins if it
// was overtaken.
func TestSubscription_UnderRetention(t *testing.T) {
	leader, follower := pair(t, &party.Options{Retention: party.Retention{MaxBytes: 8 << 20, MaxAge: 50 * time.Millisecond}})
	const batches = 600
	var all sync.WaitGroup
	begin := subscribe(t, leader, nil) // as a place to begin at
	seq := applyBatch(t, leader, "Set k=begin")
	if ev := next(t, begin); ev.Seq != seq {
		t.Fatalf("event %d, want %d", ev.Seq, seq)
	}
	for name, db := range map[string]*party.DB{"leader": leader, "follower": follower} {
		all.Go(func() {
			from, seen := seq, 0
			for {
				s, err := db.Subscribe(within(t), &party.SubscribeOptions{From: from})
				var ce *party.CompactedError
				for err == nil {
					var ev party.Event
					if ev, err = s.Next(within(t)); err != nil {
						break
					}
					if ev.Seq != from {
						t.Errorf("%s: event %d, want %d", name, ev.Seq, from)
						return
					}
					from++
					seen++
					if string(ev.Ops[0].Key) == "end" {
						must(t, s.Close())
						t.Logf("%s saw %d", name, seen)
						return
					}
				}
				if s != nil {
					must(t, s.Close())
				}
				if !errors.As(err, &ce) || ce.First <= from {
					t.Errorf("%s: at %d: %v", name, from, err)
					return
				}
				from = ce.First
			}
		})
	}
	for i := range batches {
		var b pebble.Batch
		must(t, b.Set([]byte("k"), pattern(64<<10), nil))
		at, err := follower.Apply(within(t), &b, pebble.NoSync)
		must(t, err)
		if i%100 == 50 {
			_, err := follower.Trim(within(t), at-20)
			must(t, err)
		}
	}
	set(t, leader, "end", "")
	all.Wait()
	s := responding(t, follower)
	if s.FirstSeq < seq+batches/2 {
		t.Errorf("the log begins at %d after %d batches", s.FirstSeq, batches)
	}
}
