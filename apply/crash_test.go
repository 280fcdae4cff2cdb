package apply_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// crashSeedsEnv is how many histories TestMachine_SurvivesPowerCutAtEverySyncPoint
// runs; one history takes some seconds with -race. Without it: 2, with -short 1, shorter.
const crashSeedsEnv = "APPLY_CRASH_SEEDS"

func TestMachine_SurvivesPowerCutAtEverySyncPoint(t *testing.T) {
	seeds, depths, checks := 2, 3, 40
	if testing.Short() {
		seeds, depths, checks = 1, 2, 15
	}
	if s := os.Getenv(crashSeedsEnv); s != "" {
		var err error
		seeds, err = strconv.Atoi(s)
		must(t, err)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 11))
			level := []crash{{memFS(t), newKnown()}}
			resumed := 0
			for range depths {
				var next []crash
				for _, c := range level {
					h := &history{t: t, rng: rng, k: c.k}
					h.live(c.fs)
					resumed += h.resumed
					next = append(next, h.crashes...)
				}
				rng.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
				// Some are checked, two of them are lived on in.
				for _, c := range next[:min(len(next), checks)] {
					h := &history{t: t, rng: rng, k: c.k.clone()}
					n := h.recover(c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}))
					h.askAgain(n)
					resumed += h.resumed
					must(t, n.end(false))
				}
				level = next[:min(len(next), 2)]
			}
			if resumed == 0 {
				t.Error("no leader judged before Pebble was open")
			}
		})
	}
}

// known is what is known along one path through the tree of crashes.
type known struct {
	exposed map[uint64]string   // every number that an Append returned, and its content for good
	live    map[uint64]logged   // what the log holds, retired segments included
	maybe   map[uint64][]string // was being appended
	synced  uint64              // all of live up to here survives
	sent    map[key]apply.Command
	clients []*client
}

type key struct {
	origin apply.Origin
	number uint64
}

type crash struct {
	fs *vfs.MemFS
	k  *known
}

func newKnown() *known {
	k := &known{exposed: map[uint64]string{}, live: map[uint64]logged{}, maybe: map[uint64][]string{}, sent: map[key]apply.Command{}}
	for i := range 4 {
		k.clients = append(k.clients, newClient(fmt.Sprint("client ", i)))
	}
	return k
}

func (k *known) clone() *known {
	c := *k
	c.exposed, c.live, c.sent = maps.Clone(k.exposed), maps.Clone(k.live), maps.Clone(k.sent)
	c.maybe = make(map[uint64][]string, len(k.maybe))
	for s, p := range k.maybe {
		c.maybe[s] = slices.Clone(p)
	}
	c.clients = nil
	for _, x := range k.clients {
		y := *x
		c.clients = append(c.clients, &y)
	}
	return &c
}

// history drives one leader after the other and collects what power cuts leave.
type history struct {
	t       *testing.T
	rng     *rand.Rand // of the driving goroutine
	resumed int        // leaders that judged before Pebble was open

	mu      sync.Mutex // Pebble's goroutines come by too
	k       *known
	dice    *rand.Rand
	crashes []crash
}

func (h *history) options(fs vfs.FS) (*pebble.Options, eventlog.Options) {
	o := small(fs)
	o.L0CompactionThreshold = 2
	return o, eventlog.Options{SegmentBytes: 12 << 10, ChunkBytes: 4 << 10, ReserveSeqs: uint64(1 + h.rng.IntN(9))}
}

// recover opens what a power cut left, compares it with what is known, and
// begins a term.
func (h *history) recover(fs vfs.FS) *node {
	h.t.Helper()
	var n *node
	var err error
	if h.rng.IntN(3) > 0 {
		n, err = resume(h.options(fs))
		must(h.t, err)
	}
	if n != nil {
		h.resumed++
	} else if n, err = open(h.options(fs)); err != nil {
		h.t.Fatalf("open after the power cut: %v", err)
	}
	n.notes = true
	if h.rng.IntN(2) == 0 { // else what follows may come before the replay
		must(h.t, n.m.CatchUp(h.t.Context()))
	}
	h.mu.Lock()
	k := h.k
	if n.log.Last() < k.synced {
		h.t.Fatalf("the log ends at %d, %d was durable", n.log.Last(), k.synced)
	}
	recs, err := readLog(fs, 0)
	must(h.t, err)
	for seq, r := range recs {
		if old, ok := k.exposed[seq]; ok && old != r.payload {
			h.t.Fatalf("%d holds other content than when it was given out", seq)
		}
		if _, ok := k.exposed[seq]; !ok && r.kind == eventlog.KindEntry && !slices.Contains(k.maybe[seq], r.payload) {
			h.t.Fatalf("%d holds what nobody wrote", seq)
		}
	}
	for seq := range k.live {
		_, there := recs[seq]
		if seq >= n.log.First() && seq <= k.synced && !there {
			h.t.Fatalf("%d is missing, durable was %d, first is %d", seq, k.synced, n.log.First())
		}
		if seq >= n.log.First() && !there {
			delete(k.live, seq)
		}
	}
	maps.Copy(k.live, recs)
	for seq, r := range recs {
		k.exposed[seq] = r.payload
	}
	h.compare(n, "after replay", fold(h.t, k.live))
	k.maybe = map[uint64][]string{}
	h.mu.Unlock()
	must(h.t, n.begin())
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := k.exposed[n.term]; ok {
		h.t.Fatalf("term record at %d, which was given out before", n.term)
	}
	k.exposed[n.term], k.live[n.term], k.synced = "", logged{kind: eventlog.KindTerm}, n.term
	return n
}

// compare holds the state against a model, unless it is behind the log.
func (h *history) compare(n *node, when string, want model) {
	h.t.Helper()
	if n.m.Behind() {
		return
	}
	same(h.t, when, userKeys(h.t, n.m), want.pairs())
	if n.m.Applied() != n.log.Last() {
		h.t.Fatalf("applied %d of %d", n.m.Applied(), n.log.Last())
	}
}

// find returns the number under which a command is in the log, 0 if it is not.
func (k *known) find(t *testing.T, c *apply.Command) uint64 {
	for seq, r := range k.live {
		if r.payload == "" {
			continue
		}
		e, err := apply.DecodeEntry([]byte(r.payload))
		must(t, err)
		if e.Origin == c.Origin && e.Number == c.Number {
			return seq
		}
	}
	return 0
}

// askAgain sends every open command again, and does nothing else.
func (h *history) askAgain(n *node) {
	h.t.Helper()
	for _, key := range slices.SortedFunc(maps.Keys(h.k.sent), func(a, b key) int { return int(a.number) - int(b.number) }) {
		c := retry(h.k.sent[key])
		a := n.group(c)[0]
		seq := h.k.find(h.t, &c)
		added := len(n.g.Entries())
		switch {
		case seq != 0 && (a.Outcome != apply.OutcomeDone || a.Seq != seq || added != 0):
			h.t.Fatalf("command %d is in the log at %d, the answer to its retry is %+v", c.Number, seq, a)
		case seq == 0 && a.Outcome == apply.OutcomeDone && (a.Seq != n.log.Last()+1 || added != 1):
			h.t.Fatalf("command %d is not in the log, the answer to its retry is %+v", c.Number, a)
		case a.Outcome == apply.OutcomeForgotten || a.Outcome == apply.OutcomeRefused:
			h.t.Fatalf("command %d: %+v", c.Number, a)
		}
		must(h.t, n.g.Discard())
	}
}

// live leads two terms in fs and collects crashes.
func (h *history) live(fs *vfs.MemFS) {
	h.dice = rand.New(rand.NewPCG(h.rng.Uint64(), 5))
	take := func(o op) {
		if o.kind == "write" {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.dice.IntN(4) > 0 {
			return // all of them over the seeds
		}
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: h.dice.IntN(5) * 25, RNG: h.dice}
		h.crashes = append(h.crashes, crash{fs.CrashClone(cfg), h.k.clone()})
	}
	hook := &hookFS{FS: fs}
	for range 2 {
		hook.hook(func(o op) error { take(o); return nil }, take)
		n := h.recover(hook)
		h.askAgain(n)
		for range 10 + h.rng.IntN(15) {
			h.step(n)
		}
		clean := h.rng.IntN(2) == 0
		must(h.t, n.end(clean))
		h.mu.Lock()
		if clean {
			h.k.synced = slices.Max(slices.Collect(maps.Keys(h.k.live)))
		}
		h.mu.Unlock()
		hook.hook(nil, nil)
	}
}

func (h *history) step(n *node) {
	h.t.Helper()
	switch h.rng.IntN(12) {
	case 0:
		must(h.t, flushSoon(n.m))
		return
	case 1:
		durable, err := n.m.Durable()
		must(h.t, err)
		must(h.t, n.log.Retain(eventlog.Retention{MaxBytes: 1}, durable))
		return
	case 2:
		n.m.Replay(&countdown{h.t.Context(), h.rng.IntN(3)})
		return
	case 3:
		must(h.t, n.m.CatchUp(h.t.Context()))
		h.compare(n, "after catching up", fold(h.t, h.k.live))
		return
	}
	h.mu.Lock()
	state := fold(h.t, h.k.live)
	var cmds []apply.Command
	for range 1 + h.rng.IntN(5) {
		if len(h.k.sent) > 0 && h.rng.IntN(4) == 0 {
			open := slices.SortedFunc(maps.Keys(h.k.sent), func(a, b key) int {
				return slices.Compare(append(a.origin[:], byte(a.number)), append(b.origin[:], byte(b.number)))
			})
			cmds = append(cmds, retry(h.k.sent[open[h.rng.IntN(len(open))]]))
			continue
		}
		cmds = append(cmds, h.command(state))
	}
	h.mu.Unlock()
	answers := n.group(cmds...)
	h.mu.Lock()
	next := n.log.Last() + 1
	for i, c := range cmds { // the judgement, by the model
		want := apply.Answer{Outcome: apply.OutcomeDone, Seq: h.k.find(h.t, &c)}
		if want.Seq == 0 {
			for seq := n.log.Last() + 1; seq < next; seq++ {
				e, err := apply.DecodeEntry(n.g.Entries()[seq-n.log.Last()-1])
				must(h.t, err)
				if e.Origin == c.Origin && e.Number == c.Number {
					want.Seq = seq
				}
			}
		}
		if want.Seq == 0 {
			if c.Cond != nil && !state.holds(c.Cond) {
				want = apply.Answer{Outcome: apply.OutcomeNotSwapped}
			} else {
				want.Seq = next
				next++
				state.apply(h.t, c.Repr)
			}
		}
		if answers[i] != want {
			h.t.Fatalf("command %d of %v: %+v, want %+v", c.Number, c.Origin, answers[i], want)
		}
	}
	for i, e := range n.g.Entries() {
		seq := n.log.Last() + 1 + uint64(i)
		h.k.maybe[seq] = append(h.k.maybe[seq], string(e))
	}
	h.mu.Unlock()
	must(h.t, n.finish())
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range n.g.Entries() {
		seq := n.log.Last() - uint64(len(n.g.Entries())-1-i)
		if old, ok := h.k.exposed[seq]; ok {
			h.t.Fatalf("%d was given out before, to %.40q", seq, old)
		}
		h.k.exposed[seq] = string(e)
		h.k.live[seq] = logged{eventlog.KindEntry, string(e)}
	}
	if n.g.Sync() {
		h.k.synced = n.log.Last()
	}
	h.compare(n, "after a group", state)
}

// command makes a new command. Each origin has a few without an answer.
func (h *history) command(state model) apply.Command {
	c := h.k.clients[h.rng.IntN(len(h.k.clients))]
	k := func() []byte { return fmt.Appendf(nil, "k%02d", h.rng.IntN(30)) }
	cmd := c.cmd(batch(h.t, func(b *pebble.Batch) error {
		for range 1 + h.rng.IntN(4) {
			value := fmt.Appendf(nil, "%d/%d %0*d", c.number, h.rng.Uint64(), h.rng.IntN(1500), 0)
			var err error
			switch h.rng.IntN(12) {
			case 0:
				err = b.Delete(k(), nil)
			case 1:
				err = b.SingleDelete(k(), nil)
			case 2, 3:
				err = b.Merge(k(), value[:5], nil)
			case 4:
				err = b.DeleteRange(k(), k(), nil) // may be upside down: nothing
			case 5:
				if h.rng.IntN(4) == 0 {
					// not from the empty key, for -race: see TestPebble_DeletesFromTheEmptyKey
					err = b.DeleteRange([]byte{0}, []byte("\xff\xff\xff\xff"), nil)
				}
			default:
				err = b.Set(k(), value, nil)
			}
			if err != nil {
				return err
			}
		}
		return b.Set(k(), []byte("never empty"), nil)
	}))
	cmd.Low = max(c.number, 6) - 5
	cmd.Sync = h.rng.IntN(3) == 0
	cmd.Since = 0
	if h.rng.IntN(4) == 0 {
		key := k()
		v, there := state[string(key)]
		cmd.Cond = &apply.Condition{Key: key, Absent: !there, Value: []byte(v)}
		if !there {
			cmd.Cond.Value = nil
		}
		if h.rng.IntN(3) == 0 {
			cmd.Cond.Absent = !cmd.Cond.Absent
		}
	}
	h.k.sent[key{c.origin, c.number}] = cmd
	maps.DeleteFunc(h.k.sent, func(x key, _ apply.Command) bool { return x.origin == c.origin && x.number < cmd.Low })
	return cmd
}
