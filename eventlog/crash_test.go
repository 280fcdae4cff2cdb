package eventlog_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// known is what is known of a log, along one path through the tree of crashes.
type known struct {
	given   map[uint64]string // every number that was returned, and its content; "" for a term record
	maybe   map[uint64][]string
	durable uint64 // all below is there after a power cut
	term    uint64 // the record of a term that is not durable yet, 0: none
	closed  bool   // cleanly, with all durable
	next    uint64 // then, the next number
	first   uint64 // retention may have deleted what is below
}

func (k *known) clone() *known {
	c := *k
	c.given, c.maybe = maps.Clone(k.given), maps.Clone(k.maybe)
	return &c
}

// lost is a content that nothing has: a number that a power cut took must not come back.
const lost = "lost"

type crash struct {
	fs *vfs.MemFS
	k  *known
}

// history drives a log and collects the states that power cuts could leave.
type history struct {
	t       *testing.T
	rng     *rand.Rand
	k       *known
	n       *int // entries so far in the whole tree: no two have the same content
	crashes []crash
}

func TestLog_SurvivesPowerCutAtEveryChange(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			n := 0
			level := []crash{{memFS(t), &known{given: map[uint64]string{}, maybe: map[uint64][]string{}, first: 1}}}
			for range 4 {
				var nextLevel []crash
				for _, c := range level {
					h := &history{t: t, rng: rng, k: c.k, n: &n}
					h.run(c.fs)
					nextLevel = append(nextLevel, h.crashes...)
				}
				rng.Shuffle(len(nextLevel), func(i, j int) { nextLevel[i], nextLevel[j] = nextLevel[j], nextLevel[i] })
				// all of them are checked, some are lived on in
				for _, c := range nextLevel {
					h := &history{t: t, rng: rng, k: c.k.clone(), n: &n}
					h.check(c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}))
				}
				level = nextLevel[:min(len(nextLevel), 3)]
			}
		})
	}
}

func (h *history) options(fs vfs.FS) eventlog.Options {
	o := eventlog.Options{FS: fs, ID: testID, SegmentBytes: 12 << 10, ChunkBytes: 4 << 10, ReserveSeqs: uint64(1 + h.rng.IntN(9))}
	if h.rng.IntN(2) == 0 {
		o.DurableHint = h.k.durable
	}
	return o
}

// check opens what a power cut left, compares it, and starts a term in it.
func (h *history) check(fs vfs.FS) *eventlog.Log {
	h.t.Helper()
	l, err := eventlog.Open(logDir, h.options(fs))
	if err != nil {
		h.t.Fatalf("open after power cut: %v\n%v", err, fs)
	}
	k := h.k
	if l.Last() < k.durable {
		h.t.Fatalf("last is %d, durable was %d", l.Last(), k.durable)
	}
	recs, err := read(fs, logDir, 0, all)
	if err != nil {
		h.t.Fatal(err)
	}
	there := map[uint64]string{}
	for _, r := range recs {
		there[r.seq] = r.payload
		want, ok := k.given[r.seq]
		for _, m := range k.maybe[r.seq] { // was being appended just then
			ok = ok || m == r.payload
			if m == r.payload {
				want = m
			}
		}
		if !ok || want != r.payload {
			h.t.Fatalf("%d holds %.20q, want %.20q", r.seq, r.payload, want)
		}
	}
	for seq, content := range k.given {
		if _, ok := there[seq]; !ok && seq <= k.durable && seq >= k.first && content != lost {
			h.t.Fatalf("%d is missing, durable was %d", seq, k.durable)
		}
	}
	before := l.Last()
	_, seq, err := l.StartTerm(time.Unix(1, 0))
	must(h.t, err)
	if _, ok := k.given[seq]; ok || seq <= before {
		h.t.Fatalf("term record at %d, which was given before", seq)
	}
	for g := range k.given {
		if g >= seq {
			h.t.Fatalf("term record at %d, but %d was given before", seq, g)
		}
	}
	if k.closed && seq != k.next {
		h.t.Fatalf("term record at %d after a clean close, want %d", seq, k.next)
	}
	_, err = read(fs, logDir, 0, all)
	must(h.t, err)
	k.given = there
	k.maybe = map[uint64][]string{seq: {""}}
	k.term, k.closed = seq, false
	if h.rng.IntN(2) == 0 { // else the first append may have the sync, or the end
		must(h.t, l.Sync())
		h.synced(seq)
	}
	return l
}

// run lives on in fs for some steps and takes a crash after changes.
func (h *history) run(fs *vfs.MemFS) {
	hook := &hookFS{FS: fs}
	percents := []int{0, 20, 50, 80, 100}
	take := func(op) {
		if h.rng.IntN(3) > 0 && len(h.crashes) > 3 {
			return
		}
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percents[h.rng.IntN(len(percents))], RNG: h.rng}
		h.crashes = append(h.crashes, crash{fs.CrashClone(cfg), h.k.clone()})
	}
	// Numbers that were given stay forbidden until somebody saw what became of them; check rebuilds given, so keep them.
	forbidden := maps.Clone(h.k.given)
	opening := h.k.clone()
	hook.after = func(o op) { // while opening, what is known is what was known before, and the term record may come
		saved := h.k
		h.k = opening
		take(o)
		h.k = saved
	}
	for s := opening.durable + 1; s < opening.durable+200; s++ {
		opening.maybe[s] = append(opening.maybe[s], "")
	}
	opening.closed = false
	l := h.check(hook)
	for s := range forbidden {
		if _, ok := h.k.given[s]; !ok {
			h.k.given[s] = lost
		}
	}
	hook.after = take
	h.k.first = max(h.k.first, 1)
	for range 4 + h.rng.IntN(8) {
		h.step(l)
	}
	if h.rng.IntN(2) == 0 {
		must(h.t, l.Close())
		h.synced(l.Last())
		h.k.closed, h.k.next = true, l.Last()+1
		take(op{})
	} else {
		must(h.t, l.Abort())
	}
}

// synced notes that all up to seq is durable. Nobody is told of a term before its record is, so
// another one may have its number until then.
func (h *history) synced(seq uint64) {
	h.k.durable = max(h.k.durable, seq)
	if h.k.term != 0 && h.k.term <= h.k.durable {
		h.k.given[h.k.term], h.k.term = "", 0
	}
}

func (h *history) step(l *eventlog.Log) {
	switch x := h.rng.IntN(20); {
	case x == 0:
		must(h.t, l.Sync())
		h.synced(l.Last())
	case x == 1:
		h.k.first = max(h.k.first, l.Last()/2+1) // beforehand: crashes may come in the middle
		must(h.t, l.Retain(eventlog.Retention{MaxBytes: 1}, l.Last()/2))
	case x == 2:
		seq := l.Last() + 1
		h.k.maybe[seq] = append(h.k.maybe[seq], "")
		_, seq, err := l.StartTerm(time.Unix(2, 0))
		must(h.t, errors.Join(err, l.Sync()))
		h.synced(l.Last())
		h.k.given[seq] = ""
	default:
		sync := x > 15
		var group []string
		for range 1 + h.rng.IntN(4) {
			*h.n++
			size := h.rng.IntN(300)
			if h.rng.IntN(4) == 0 {
				size = h.rng.IntN(9000)
			}
			e := entry(*h.n, size)
			seq := l.Last() + 1 + uint64(len(group))
			h.k.maybe[seq] = append(h.k.maybe[seq], e)
			group = append(group, e)
		}
		first := add(h.t, l, sync, group...)
		for i, e := range group {
			if old, ok := h.k.given[first+uint64(i)]; ok {
				h.t.Fatalf("%d was given to %.20q before", first+uint64(i), old)
			}
			h.k.given[first+uint64(i)] = e
		}
		h.synced(l.Durable())
		if sync {
			h.synced(l.Last())
		}
	}
}
