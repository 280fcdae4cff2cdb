//go:build unix

package party_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/party"
)

// eachBatch calls f with every batch in the files of the log.
func eachBatch(t testing.TB, dir string, f func(seq uint64, ops []party.Op)) {
	t.Helper()
	eachEntry(t, dir, func(seq uint64, e apply.Entry) {
		var ops []party.Op
		all := apply.ReadOps(e.Repr)
		for op, ok := all.Next(); ok; op, ok = all.Next() {
			o := party.Op{Kind: party.OpDelete, Key: op.Key}
			switch op.Kind {
			case pebble.InternalKeyKindSet:
				o.Kind, o.Value = party.OpSet, op.Value
			case pebble.InternalKeyKindRangeDelete:
				o.Kind, o.End = party.OpDeleteRange, op.Value
			}
			ops = append(ops, o)
		}
		f(seq, ops)
	})
}

// touches tells whether one of ops concerns a key within bounds.
func touches(ops []party.Op, o *party.WatchOptions) bool {
	lower, upper := string(o.LowerBound), string(o.UpperBound)
	if lower == "" && upper == "" {
		return true // of a range without keys, too
	}
	for _, op := range ops {
		from, to := string(op.Key), string(op.Key)+"\x00"
		if op.Kind == party.OpDeleteRange {
			to = string(op.End)
		}
		if from = max(from, lower); upper != "" {
			to = min(to, upper)
		}
		if from < to {
			return true
		}
	}
	return false
}

// Processes watch, others write, and whoever leads is killed, also while it
// watches itself. Whenever a watch begins, its view is at the marker what the log
// makes of the keys, and again after each event that concerns it, of which none is
// missing; and at the end it is what the database holds.
func TestWatcher_WhileLeadersDie(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 8
	}
	const end = "d the end" // within all bounds
	dir, journals := newDir(t), t.TempDir()
	c := &crew{t: t, dir: dir}
	for i := range 2 {
		c.hire(request{Op: "churn", N: 2 + i})
	}
	var watchers []request
	for i := range watchBounds {
		w := request{Op: "watch", N: i, Key: []byte(end), Value: []byte(filepath.Join(journals, fmt.Sprint(i)))}
		c.hire(w)
		watchers = append(watchers, w)
	}
	rng := rand.New(rand.NewPCG(6, 7))
	for kill := range kills {
		journal := string(watchers[kill%len(watchers)].Value)
		size := len(readJournal(t, journal))
		until(t, "a watcher sees more", func() bool { return len(readJournal(t, journal)) > size+rng.IntN(50) })
		if kill%4 == 3 { // one that does not lead begins anew, too
			i := 2 + rng.IntN(len(watchers))
			c.procs[i].kill()
			c.begin(i)
			continue
		}
		<-time.After(time.Duration(rng.IntN(100)) * time.Millisecond)
		c.killLeader()
	}
	for i, job := range c.jobs {
		if job.Op == "churn" {
			c.procs[i].do(request{Op: "stop"})
			if a := receive(t, "a writer to stop", c.done[i]); a.Err != "" {
				t.Fatalf("writer: %s", a.Err)
			}
		}
	}
	c.procs[0].do(request{Op: "set", Key: []byte(end)})
	for i, job := range c.jobs {
		if job.Op == "watch" {
			if a := receive(t, "a watcher to see the end", c.done[i]); a.Err != "" {
				t.Fatalf("watcher: %s", a.Err)
			}
		}
	}

	final := view{}
	for _, pair := range scan(t, open(t, dir, nil), nil) {
		k, v, _ := strings.Cut(pair, "=")
		final[k] = v
	}
	for i, w := range watchers {
		o := &watchBounds[i]
		lower, upper := string(o.LowerBound), string(o.UpperBound)
		seqs, hashes := []uint64{0}, []uint64{0} // of the batches that touch the bounds
		state := view{}
		eachBatch(t, dir, func(seq uint64, ops []party.Op) {
			state.apply(ops)
			if touches(ops, o) {
				seqs, hashes = append(seqs, seq), append(hashes, state.within(lower, upper).hash())
			}
		})
		journal := readJournal(t, string(w.Value))
		lives, markers, at := 0, 0, -1
		for _, pair := range journal {
			switch seq, hash := pair[0], pair[1]; {
			case seq == 0:
				lives++
				at = -1
			case at < 0: // the marker: as of the last batch up to it
				markers++
				for at = 0; at+1 < len(seqs) && seqs[at+1] <= seq; at++ {
				}
				if hash != hashes[at] {
					t.Fatalf("watcher %d: the view at the marker %d is not the database", i, seq)
				}
			default:
				if at++; at == len(seqs) || seq != seqs[at] {
					t.Fatalf("watcher %d: event %d follows %d", i, seq, seqs[at-1])
				}
				if hash != hashes[at] {
					t.Fatalf("watcher %d: the view after event %d is not the database", i, seq)
				}
			}
		}
		last := journal[len(journal)-1]
		if at != len(seqs)-1 || last[1] != final.within(lower, upper).hash() {
			t.Errorf("watcher %d: the last view, as of %d of %d, is not the database", i, last[0], seqs[len(seqs)-1])
		}
		t.Logf("watcher %d: %d lives, %d markers, %d of %d batches", i, lives, markers, len(journal)-lives-markers, len(seqs))
	}
}
