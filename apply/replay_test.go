package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// countdown is a context that ends when it has been asked so many times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// killed returns the directory of a leader that was killed, and what it wrote
// last: cmds of which Pebble has flushed nothing.
func killed(t testing.TB, cmds ...apply.Command) (fs *vfs.MemFS, answers []apply.Answer) {
	t.Helper()
	fs = memFS(t)
	n, err := join(small(fs), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	n.commit(t, newClient("first").set("first", "1"), move(1, "cursor", -1, 1))
	must(t, n.m.Flush(nil))
	for _, c := range cmds {
		answers = append(answers, n.commit(t, c)...)
	}
	must(t, n.log.Sync())
	must(t, n.end(false))
	return fs, answers
}

func TestMachine_JudgesBeforeItHasReplayed(t *testing.T) {
	c := newClient("a")
	one, two := c.set("one", "1"), c.set("two", "1")
	two.Low = one.Number // not answered yet, as long as they are sent again
	fs, first := killed(t, one, two, move(2, "cursor", 1, 2))
	n, err := open(small(fs), eventlog.Options{})
	must(t, err)
	defer n.end(false)
	must(t, n.begin())
	if !n.m.Behind() || n.m.Applied() >= first[0].Seq || n.get(t, "one") != "absent" {
		t.Fatalf("nothing is left to replay: applied %d", n.m.Applied())
	}
	three := c.set("one", "3")
	three.Low = one.Number
	a := n.commit(t, retry(one), retry(two), three, move(3, "cursor", 9, 3), move(4, "cursor", 2, 4))
	want(t, a[0], apply.OutcomeDone, first[0].Seq)
	want(t, a[1], apply.OutcomeDone, first[1].Seq)
	want(t, a[2], apply.OutcomeDone, n.term+1)
	want(t, a[3], apply.OutcomeNotSwapped, 0)
	want(t, a[4], apply.OutcomeDone, n.term+2)
	want(t, n.commit(t, retry(three))[0], apply.OutcomeDone, n.term+1)
	if !n.m.Behind() || n.get(t, "one") != "absent" {
		t.Fatal("the state did not wait for its turn")
	}
	// A condition is judged by what all of them made of the state.
	b := n.commit(t, c.cas("one", "1", apply.ReprSet([]byte("one"), []byte("4"))), c.cas("one", "3", apply.ReprSet([]byte("one"), []byte("5"))))
	want(t, b[0], apply.OutcomeNotSwapped, 0)
	want(t, b[1], apply.OutcomeDone, n.term+3)
	if got := n.get(t, "one"); n.m.Behind() || got != "5" || n.m.Applied() != n.log.Last() {
		t.Fatalf("%q, applied %d of %d", got, n.m.Applied(), n.log.Last())
	}
	same(t, "state", derived(t, n.m), derived(t, replayed(t, fs)))
}

// What is in the log and not durable yet, because its sync is under way, must not be
// seen: a replica that goes by the commit word would not have it, and the sync may
// fail. Chaos seed 94012 found that.
func TestMachine_ReplaysWhatIsJudged(t *testing.T) {
	c := newClient("a")
	fs, _ := killed(t, c.set("k", "1"), move(2, "cursor", 1, 2))
	hook := &hookFS{FS: fs}
	n, err := open(small(hook), eventlog.Options{})
	must(t, err)
	defer n.end(false)
	must(t, n.begin())
	syncing, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hook.hook(func(o op) error {
		if o.kind == "sync" && strings.HasPrefix(o.path, logDir) {
			once.Do(func() { close(syncing); <-goOn })
		}
		return nil
	}, nil)
	set := c.set("k", "2")
	set.Sync = true
	n.group(set, move(3, "cursor", 2, 3))
	done := make(chan error, 1)
	go func() { done <- n.finish() }()
	<-syncing
	n.m.Replay(t.Context())
	if got := n.get(t, "k"); got != "1" || n.m.Applied() != n.term {
		t.Errorf("while it was being synced: %q, applied %d, the term began at %d", got, n.m.Applied(), n.term)
	}
	hook.hook(nil, nil)
	close(goOn)
	must(t, <-done)
	v := n.m.View() // the bookkeeping too is what it was then
	cursors, err := v.Cursors()
	must(t, err)
	v.Close()
	if ahead := n.m.Cursors(); len(cursors) != 1 || cursors[0].Seq != 2 || len(ahead) != 1 || ahead[0].Seq != 3 {
		t.Errorf("cursors %v, judged by %v", cursors, ahead)
	}
	must(t, n.m.CatchUp(t.Context()))
	if got := n.get(t, "k"); got != "2" || n.m.Applied() != n.log.Last() || n.m.Behind() {
		t.Errorf("%q, applied %d, behind %t", got, n.m.Applied(), n.m.Behind())
	}
}

// So many origins have written that some were forgotten: what is known of when has
// to come through a replay that forgets no more.
func TestMachine_ReplayKeepsTheFloor(t *testing.T) {
	fs := memFS(t)
	n, err := join(small(fs), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	var cmds []apply.Command
	for i := range apply.MaxOrigins + 2 {
		cmds = append(cmds, newClient(fmt.Sprint("o", i)).set("k", "v"))
	}
	n.commit(t, cmds...)
	must(t, n.m.Flush(nil))
	last := newClient("o1000")
	last.number = 1
	n.commit(t, last.set("k", "w"))
	must(t, n.end(false))
	n, err = join(small(fs), eventlog.Options{})
	must(t, err)
	defer n.end(false)
	same(t, "state", derived(t, n.m), derived(t, replayed(t, fs)))
}

// A condition must not be judged by a state that is behind.
func TestGroup_RefusesConditionsWhileBehind(t *testing.T) {
	c := newClient("a")
	fs, _ := killed(t, c.set("k", "1"))
	n, err := open(small(fs), eventlog.Options{})
	must(t, err)
	defer n.end(false)
	must(t, n.begin())
	defer func() {
		if recover() == nil {
			t.Fatal("it was judged")
		}
	}()
	cmd := c.cas("k", nil, apply.ReprSet([]byte("k"), []byte("2")))
	n.m.Begin(&n.g, n.log.Last()+1, time.Unix(0, n.clock))
	n.g.Judge(&cmd)
}

// Leaders die before, while and after they replay, again and again; all of them
// take commands before they have. Nothing is lost, nothing is there twice, and the
// state with its bookkeeping is what the log says, byte for byte.
func TestMachine_DiesWhileItReplays(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 21))
			fs := memFS(t)
			cmds := script(t, seed)
			behind, resumed := 0, 0
			lo := eventlog.Options{SegmentBytes: 16 << 10, ChunkBytes: 4 << 10, ReserveSeqs: 5}
			var last []apply.Command // the end of the life before
			var seqs []uint64
			for len(cmds) > 0 {
				var n *node
				var err error
				if rng.IntN(2) == 0 {
					n, err = resume(small(fs), lo)
					must(t, err)
				}
				if n != nil {
					resumed++
				} else {
					n, err = open(small(fs), lo)
					must(t, err)
				}
				n.notes = true
				must(t, n.begin())
				for i, c := range last {
					want(t, n.commit(t, retry(c))[0], apply.OutcomeDone, seqs[i])
				}
				k := min(len(cmds), 1+rng.IntN(200))
				last, cmds = cmds[:k], cmds[k:]
				seqs = live(t, n, rng, last)
				last, seqs = last[max(0, k-3):], seqs[max(0, k-3):] // Low says that those before were answered
				if n.m.Behind() {
					behind++
				}
				must(t, n.end(rng.IntN(4) == 0))
			}
			if behind < 3 {
				t.Errorf("%d leaders died while they were behind", behind)
			}
			if resumed < 3 {
				t.Errorf("%d leaders judged before Pebble was open", resumed)
			}
			n, err := join(small(fs), eventlog.Options{})
			must(t, err)
			defer n.end(false)
			same(t, "state", derived(t, n.m), derived(t, replayed(t, fs)))
			recs, err := readLog(fs, 0)
			must(t, err)
			same(t, "user keys", userKeys(t, n.m), fold(t, recs).pairs())
		})
	}
}

// live commits cmds one by one, beside a replay that it ends at some time or not.
func live(t testing.TB, n *node, rng *rand.Rand, cmds []apply.Command) (seqs []uint64) {
	t.Helper()
	var replay sync.WaitGroup
	if batches := rng.IntN(6); batches > 0 {
		replay.Go(func() { n.m.Replay(&countdown{t.Context(), batches}) })
	}
	done := rng.IntN(2 * len(cmds)) // of half of the leaders the state stays behind
	for i, c := range cmds {
		if i == done {
			replay.Wait()
			must(t, n.m.CatchUp(t.Context()))
			if rng.IntN(5) == 0 {
				same(t, "after catching up", derived(t, n.m), derived(t, replayed(t, n.fs)))
			}
		}
		if rng.IntN(20) == 0 {
			must(t, flushSoon(n.m))
		}
		seqs = append(seqs, n.commit(t, c)[0].Seq)
	}
	replay.Wait()
	return seqs
}

// A replay that failed is not gone on with: the bookkeeping in its hands may be
// ahead of Pebble. A clean end says so, and leaves what there is to the next leader.
func TestMachine_ReplayFailsForGood(t *testing.T) {
	c := newClient("a")
	fs, first := killed(t, c.set("one", "1"), c.set("two", "the value"))
	n, err := open(small(fs), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	names, err := fs.List(logDir)
	must(t, err)
	overwrite(t, fs, logDir+"/"+names[0], "the value", "the vaLue")
	n.m.Replay(t.Context())
	overwrite(t, fs, logDir+"/"+names[0], "the vaLue", "the value")
	for range 2 {
		if err := n.m.CatchUp(t.Context()); !errors.Is(err, eventlog.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if err := n.end(true); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Fatal("a clean end though the state is not complete:", err)
	}
	again, err := join(small(fs), eventlog.Options{})
	must(t, err)
	defer again.end(false)
	if got := again.get(t, "one") + again.get(t, "two"); got != "1the value" || again.m.Applied() < first[1].Seq {
		t.Fatalf("%q, applied %d", got, again.m.Applied())
	}
}

// writeFarAhead leaves a log in fs of which Pebble has nothing: entries of 16 KiB, and
// k=v at the end.
func writeFarAhead(fs vfs.FS, entries int) error {
	n, err := join(&pebble.Options{FS: fs, MemTableSize: 64 << 20, Logger: silent{}}, eventlog.Options{})
	if err != nil {
		return err
	}
	if err := n.begin(); err != nil {
		return err
	}
	c := newClient("a")
	for i := range entries {
		n.group(c.set(fmt.Sprint(i), strings.Repeat("x", 16<<10)))
		if err := n.finish(); err != nil {
			return err
		}
	}
	n.group(c.set("k", "v"))
	return errors.Join(n.finish(), n.log.Sync(), n.end(false))
}

// overwrite changes bytes of a file where they are.
func overwrite(t testing.TB, fs vfs.FS, path, old, new string) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	must(t, err)
	at := bytes.Index(b, []byte(old))
	if at < 0 {
		t.Fatalf("%q is not in %s", old, path)
	}
	_, err = f.WriteAt([]byte(new), int64(at))
	must(t, errors.Join(err, f.Close()))
}

// Who wrote what is learned from the head of an entry only. That its operations make
// no sense, as those of a newer program may not, is found when they are replayed.
func TestMachine_StopsBeforeAnEntryItCannotApply(t *testing.T) {
	c := newClient("a")
	fs, answers := killed(t, c.set("k", "1"))
	good := answers[0].Seq
	r, err := eventlog.OpenReader(fs, logDir, good)
	must(t, err)
	rec, ok, err := r.Next(good)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	entry := bytes.Clone(rec.Payload)
	must(t, r.Close())
	e, err := apply.DecodeEntry(entry)
	must(t, err)
	entry[len(entry)-len(e.Repr)+12] = 0xee // the kind of the first operation
	n, err := open(small(fs), eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	bad, err := n.log.Append([][]byte{entry}, true)
	must(t, err)
	must(t, n.end(false))

	n, err = open(small(fs), eventlog.Options{})
	must(t, err)
	defer n.end(false)
	must(t, n.begin())
	n.m.Replay(t.Context())
	err = n.m.CatchUp(t.Context())
	if !errors.Is(err, apply.ErrUnsupported) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", bad)) {
		t.Errorf("the error is %v", err)
	}
	if again := n.m.CatchUp(t.Context()); again == nil || again.Error() != err.Error() {
		t.Errorf("then %v", again)
	}
	if n.m.Applied() >= bad || !n.m.Behind() {
		t.Errorf("applied %d, past entry %d", n.m.Applied(), bad)
	}
}
