package party

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// bench is a notifier whose run is called by hand, and the sequencer before it.
type bench struct {
	t    *testing.T
	n    *notifier
	word *eventlog.Commit
	got  map[string][]notice
	late bool // run has other things to do
}

func newBench(t *testing.T) *bench {
	w, err := eventlog.CreateCommit(filepath.Join(t.TempDir(), "commit"), eventlog.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	w.SetCommitted(10)
	l := &leader{db: &DB{opts: Options{Pebble: &pebble.Options{Comparer: pebble.DefaultComparer}}}, word: w}
	return &bench{t: t, n: newNotifier(l), word: w, got: make(map[string][]notice)}
}

func who(name string) waiter { return waiter{origin: apply.Origin([]byte(fmt.Sprintf("%-16s", name)))} }

func (b *bench) wait(name string, id, after uint64, ranges ...bounds) {
	b.n.add(who(name), &wait{id: id, after: after, ranges: ranges, tell: func(n notice) { b.got[name] = append(b.got[name], n) }})
}

// commit commits a group of batches that each set a key.
func (b *bench) commit(keys ...string) {
	first := b.word.Committed() + 1
	var entries [][]byte
	for _, k := range keys {
		repr := apply.ReprSet([]byte(k), nil)
		entries = append(entries, append(append([]byte{1, 0}, make([]byte, 8+16+2)...), repr...))
	}
	b.word.SetCommitted(first + uint64(len(keys)) - 1)
	b.n.committed(first, entries)
	if !b.late {
		b.look()
	}
}

// look does what run does.
func (b *bench) look() {
	select {
	case <-b.n.rung:
		b.n.look()
	default:
	}
}

func (b *bench) expect(name string, want ...notice) {
	b.t.Helper()
	if got := b.got[name]; fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s was told %v, want %v", name, got, want)
	}
	delete(b.got, name)
}

func (b *bench) waits(n int64) {
	b.t.Helper()
	if got := b.n.waits.Load(); got != n || len(b.n.list) != int(n) {
		b.t.Errorf("%d wait, %d are on the list, want %d", got, len(b.n.list), n)
	}
}

var kToL = bounds{[]byte("k"), []byte("l")}

func TestNotifier_TellsWhomItConcerns(t *testing.T) {
	b := newBench(t)
	b.commit("k") // nobody waits
	b.wait("all", 1, 11)
	b.wait("k", 1, 11, kToL)
	b.wait("k or x", 1, 11, bounds{[]byte("x"), nil}, kToL)
	b.waits(3)
	b.commit("a")
	b.expect("all", notice{11, 12, false})
	b.commit("b", "x", "k")
	b.expect("k or x", notice{13, 15, false})
	b.expect("k", notice{14, 15, false})
	b.waits(0)
	b.expect("all")

	b.wait("late", 1, 12, kToL) // behind already
	b.expect("late", notice{12, 15, false})
	b.waits(0)
}

func TestNotifier_LaterRequestReplaces(t *testing.T) {
	b := newBench(t)
	b.wait("w", 2, 10, kToL)
	b.wait("w", 1, 10) // overtaken on its way
	b.commit("a")
	b.expect("w")
	b.wait("w", 3, 11)
	b.waits(1)
	b.commit("a")
	b.expect("w", notice{11, 12, false})
	b.wait("w", 4, 12)
	b.n.drop(who("w"))
	b.n.drop(who("w"))
	b.waits(0)
}

// Groups of all sizes, some looked at by the sequencer and some by run, which comes late:
// nobody is told to pass over what touches him, and nobody is forgotten.
func TestNotifier_RandomNews(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 11))
		b := newBench(t)
		key := func() string { return string(rune('a' + rng.IntN(8))) }
		all := make([]string, 11) // by sequence number
		type asked struct {
			after uint64
			bounds
		}
		waits := make(map[string]asked)
		touched := func(w asked, through uint64) bool {
			for _, k := range all[w.after+1 : through+1] {
				if k >= string(w.lower) && k < string(w.upper) {
					return true
				}
			}
			return false
		}
		for step := range 60 {
			b.late = rng.IntN(2) == 0
			switch rng.IntN(4) {
			case 0:
				lower := key()
				w := asked{uint64(len(all) - 1), bounds{[]byte(lower), []byte(lower + "~")}}
				name := fmt.Sprint(rng.IntN(25))
				b.wait(name, uint64(step), w.after, w.bounds)
				waits[name] = w
			case 1:
				b.look()
			default:
				keys := make([]string, 1+rng.IntN(4))
				for i := range keys {
					keys[i] = key() + strings.Repeat("x", rng.IntN(2)*rng.IntN(1500))
				}
				all = append(all, keys...)
				b.commit(keys...)
			}
			for name, got := range b.got {
				w := waits[name]
				if len(got) != 1 || got[0].Through < w.after || touched(w, got[0].Through) {
					t.Fatalf("seed %d: %s, who waits behind %d for %q, was told %v; the keys are %.3q", seed, name, w.after, w.lower, got, all)
				}
				delete(b.got, name)
				delete(waits, name)
			}
			if len(b.n.rung) > 0 {
				continue // run will look
			}
			for name, w := range waits {
				if touched(w, uint64(len(all)-1)) {
					t.Fatalf("seed %d: %s, who waits behind %d for %q, was not told; the keys are %.3q", seed, name, w.after, w.lower, all)
				}
			}
		}
	}
}

// What is too much to look at concerns everybody.
func TestNotifier_BoundsItsWork(t *testing.T) {
	b := newBench(t)
	b.wait("k", 1, 10, kToL)
	b.commit("a")
	b.commit("a" + string(bytes.Repeat([]byte("x"), newsBytes)))
	b.expect("k", notice{11, 12, false})
	b.wait("k", 2, 12, kToL)
	b.commit("a")
	b.expect("k") // it has recovered
	b.waits(1)
	b.n.drop(who("k"))

	// more comparisons than it makes: all are told how far it came
	for i := range 100 {
		b.wait(fmt.Sprint(i), 1, 13, kToL)
	}
	keys := make([]string, newsChecks/50)
	for i := range keys {
		keys[i] = "a"
	}
	b.commit(keys...)
	const far = 13 + newsChecks/100
	for i := range 100 {
		got := b.got[fmt.Sprint(i)]
		if len(got) != 1 || got[0].Through < far || got[0].Through > far+1 || got[0].Committed != uint64(13+len(keys)) {
			t.Errorf("wait %d was told %v, want that nothing up to %d concerns it", i, got, far)
		}
	}
	b.waits(0)
}

// Who has waited for long hears how far the log has come.
func TestNotifier_Refreshes(t *testing.T) {
	b := newBench(t)
	b.wait("k", 1, 10, kToL)
	b.commit("a", "b")
	b.n.refresh(time.Now())
	b.expect("k")
	b.waits(1)
	b.n.refresh(time.Now().Add(2 * noticeAfter))
	b.expect("k", notice{12, 12, false})
	b.waits(0)
}

// Named subscriptions that owe no Ack are told to note how far they have come,
// those that are farthest behind first, and only if the log has gone on.
func TestNotifier_HasPositionsNoted(t *testing.T) {
	b := newBench(t)
	named := func(name string, after, unacked uint64) {
		b.n.add(who(name), &wait{id: 1, after: after, unacked: unacked, ranges: []bounds{kToL}, tell: func(n notice) { b.got[name] = append(b.got[name], n) }})
	}
	named("level", 10, 11)
	b.n.note()
	b.expect("level")
	for i := range 2 * noteWaits {
		named(fmt.Sprint(i), 10, uint64(11-i%4))
	}
	b.wait("no name", 1, 10, kToL)
	b.commit("a", "b")
	named("new", 12, 13)
	b.n.note()
	for i := range 2 * noteWaits {
		if i%4 >= 2 {
			b.expect(fmt.Sprint(i), notice{12, 12, true})
		} else {
			b.expect(fmt.Sprint(i))
		}
	}
	b.expect("level")
	b.expect("new")
	b.n.note()
	b.expect("no name")
	b.expect("new")
	b.waits(3) // those two, and one more than are told at once
}

// FuzzWait: no request to wait, notice or log entry makes a decoder panic, what
// is decoded survives a round trip, and an event has what its bounds show.
func FuzzWait(f *testing.F) {
	w := waitRequest{Origin: apply.Origin{1}, ID: 2, After: 3, Unacked: 4, Ranges: []bounds{kToL, {nil, []byte("x")}}}
	f.Add(w.append(nil), []byte("k"))
	f.Add(appendNotice(nil, 1, notice{2, 3, false}), []byte("k"))
	f.Add(appendNotice(nil, 1, notice{2, 3, true}), []byte{})
	f.Add(appendError(appendHeader(nil, msgError), ErrDiskFull), []byte{})
	entry := append(append([]byte{1, 0}, make([]byte, 8+16+2)...), apply.ReprDeleteRange([]byte("a"), []byte("z"))...)
	f.Add(entry, []byte("k"))
	f.Add(append(appendHeader(nil, msgWait), make([]byte, 300)...), []byte{})
	f.Fuzz(func(t *testing.T, b, lower []byte) {
		c := pebble.DefaultComparer
		if _, body, err := openMessage(b); err == nil {
			var w, again waitRequest
			if w.decode(body, c) == nil {
				encoded := w.append(nil)
				if _, body, err = openMessage(encoded); err == nil {
					err = again.decode(body, c)
				}
				if err != nil || !bytes.Equal(again.append(nil), encoded) {
					t.Errorf("request does not survive a round trip: %v", err)
				}
			}
		}
		if id, n, err := decodeNotice(b); err == nil {
			if id2, n2, err := decodeNotice(appendNotice(nil, id, n)); id2 != id || n2 != n || err != nil {
				t.Errorf("notice does not survive a round trip: %v", err)
			}
		}
		e, err := apply.DecodeEntry(b)
		if err != nil {
			return
		}
		shown := bounds{lower: lower}
		ev, ok := newEvent(1, &e, &shown, c.Compare)
		if ok != (len(ev.Ops) > 0) {
			t.Errorf("%t with %d operations", ok, len(ev.Ops))
		}
		for _, op := range ev.Ops {
			if c.Compare(op.Key, lower) < 0 {
				t.Errorf("%s %q is below the bound %q", op.Kind, op.Key, lower)
			}
		}
	})
}
