//go:build unix

package party_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// quietWorkers are processes that share the name of a subscription whose keys are
// seldom written. One at a time owns it.
type quietWorkers struct {
	*crew
	db      *party.DB // of the test
	journal string
	keys    []uint64 // sequence numbers of what was written for them
}

// owner returns which of the processes owns the name, once one of those that live
// does.
func (w *quietWorkers) owner() (i int) {
	w.t.Helper()
	until(w.t, "somebody owns the name", func() bool {
		for _, pair := range slices.Backward(readJournal(w.t, w.journal)) {
			if pair[0] == 0 {
				i = slices.IndexFunc(w.procs, func(p *process) bool { return uint64(p.pid) == pair[1] })
				return i >= 0
			}
		}
		return false
	})
	return i
}

// acked returns where the cursor is.
func (w *quietWorkers) acked() uint64 {
	w.t.Helper()
	for _, c := range responding(w.t, w.db).Cursors {
		if c.Name == "quiet" {
			return c.Acked
		}
	}
	return 0
}

// pass writes what is of no concern to them until that is noted, and nothing more
// behind it. A note may miss its moment: who has just been told something does not
// wait. The next flush makes up for that.
func (w *quietWorkers) pass() (seq uint64) {
	w.t.Helper()
	var again time.Time
	until(w.t, "the owner notes how far it has come", func() bool {
		if time.Now().After(again) {
			seq, again = applyBatch(w.t, w.db, "Set x="+string(pattern(2<<20))), time.Now().Add(time.Second)
		}
		return w.acked() >= seq
	})
	return seq
}

// write writes for them.
func (w *quietWorkers) write() {
	w.t.Helper()
	w.keys = append(w.keys, applyBatch(w.t, w.db, fmt.Sprintf("Set k%d=v", len(w.keys))))
}

// delivered tells whether somebody got the last of what was written for them.
func (w *quietWorkers) delivered() bool {
	last := w.keys[len(w.keys)-1]
	return slices.ContainsFunc(readJournal(w.t, w.journal), func(pair [2]uint64) bool { return pair[0] == last })
}

// A named worker that has nothing to do for long notes how far it has come. When it
// is killed then, leader or not, another one gets all that was written since for
// them, from the very next sequence number on, and nothing that was acknowledged.
func TestSubscription_QuietWorkersAreKilled(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	dir := newDir(t)
	w := &quietWorkers{crew: &crew{t: t, dir: dir}, db: open(t, dir, nil), journal: filepath.Join(t.TempDir(), "work")}
	for range 2 {
		w.hire(request{Op: "work", Key: []byte("quiet"), Old: []byte("k"), Value: []byte(w.journal), N: 1})
		until(t, "there is a journal", func() bool { m, _ := filepath.Glob(w.journal); return len(m) == 1 })
	}
	w.write()
	until(t, "the first event is there", w.delivered)
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range rounds {
		if round%3 == 1 {
			must(t, w.db.Resign(within(t))) // so that one of them leads
		}
		owner := w.owner()
		seq := w.pass()
		// The note itself has a number behind what it says; nothing else came.
		if got, committed := w.acked(), responding(t, w.db).Committed; got < seq || got >= committed {
			t.Errorf("round %d: noted is %d, of which %d is the last that was passed and %d the last at all", round, got, seq, committed)
		}
		if early := rng.IntN(3); early > 0 { // it may get these, and acknowledge them, or be killed before
			for range early {
				w.write()
			}
		}
		w.procs[owner].kill()
		for range 3 {
			w.write()
		}
		w.begin(owner)
		until(t, "what was written is delivered", w.delivered)
	}
	applyBatch(t, w.db, "Set kthe end=v")
	for i := range w.procs {
		if a := receive(t, "a worker to see the end", w.done[i]); a.Err != "" {
			t.Fatalf("worker: %s", a.Err)
		}
	}
	w.judge()
}

// judge goes through the journal: each owner begins behind what was acknowledged,
// and goes on without a gap.
func (w *quietWorkers) judge() {
	w.t.Helper()
	acked, got := 0, 0 // how many of keys the journal says were
	owners, first := 0, false
	for _, pair := range readJournal(w.t, w.journal) {
		seq, hash := pair[0], pair[1]
		i := slices.Index(w.keys, seq)
		switch {
		case seq == 0:
			owners++
			first = true
		case i < 0: // the end
		case hash == 0:
			acked = i + 1
		default:
			// The Ack that an owner died in may have been carried out.
			if first && i != acked && i != got || !first && i != got {
				w.t.Fatalf("owner %d got number %d (%d); acknowledged were %d, delivered %d", owners, i, seq, acked, got)
			}
			got, first = i+1, false
		}
	}
	if got != len(w.keys) {
		w.t.Errorf("%d of %d events were delivered", got, len(w.keys))
	}
	w.t.Logf("%d events, %d owners", len(w.keys), owners)
}
