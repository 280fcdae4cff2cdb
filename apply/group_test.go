package apply_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

func want(t testing.TB, a apply.Answer, o apply.Outcome, seq uint64) {
	t.Helper()
	if a.Outcome != o || a.Seq != seq {
		t.Fatalf("answer %+v, want outcome %d, sequence number %d", a, o, seq)
	}
}

func refusedWith(t testing.TB, a apply.Answer, err error) {
	t.Helper()
	if a.Outcome != apply.OutcomeRefused || !errors.Is(a.Err, err) {
		t.Fatalf("answer %+v, want a refusal: %v", a, err)
	}
}

func TestGroup_RecognisesDuplicates(t *testing.T) {
	fs := memFS(t)
	n := lead(t, small(fs))
	c := newClient("a")
	one := c.set("k", "1")
	two := c.cmd(apply.ReprMerge([]byte("k"), []byte("+2")))
	two.Low = 1
	a := n.commit(t, one, retry(one), two, retry(two))
	want(t, a[1], apply.OutcomeDone, a[0].Seq)
	want(t, a[3], apply.OutcomeDone, a[2].Seq)
	if len(n.g.Entries()) != 2 {
		t.Fatalf("%d entries for two commands", len(n.g.Entries()))
	}
	want(t, n.commit(t, retry(two))[0], apply.OutcomeDone, a[2].Seq)
	want(t, n.commit(t, two)[0], apply.OutcomeDone, a[2].Seq) // a late copy of the first sending
	for _, clean := range []bool{false, true} {
		must(t, n.end(clean))
		n = lead(t, small(fs))
		want(t, n.commit(t, retry(one))[0], apply.OutcomeDone, a[0].Seq)
		want(t, n.commit(t, retry(two))[0], apply.OutcomeDone, a[2].Seq)
	}
	if v := n.get(t, "k"); v != "1+2" {
		t.Fatalf("k is %q", v)
	}
}

func TestMachine_RecognisesRetryAfterCrash(t *testing.T) {
	fs := memFS(t)
	n := lead(t, small(fs))
	c := newClient("a")
	cmd := c.cmd(apply.ReprMerge([]byte("k"), []byte("x")))
	cmd.Sync = true
	first := n.commit(t, cmd)[0]
	crashed := fs.CrashClone(cfgNothing)
	n2 := lead(t, small(crashed))
	want(t, n2.commit(t, retry(cmd))[0], apply.OutcomeDone, first.Seq)
	if v := n2.get(t, "k"); v != "x" {
		t.Fatalf("k is %q", v)
	}
}

func TestGroup_RefusesAnsweredNumbers(t *testing.T) {
	n := lead(t, small(memFS(t)))
	c := newClient("a")
	old := c.cas("k", "no", apply.ReprSet([]byte("k"), []byte("late")))
	want(t, n.commit(t, old)[0], apply.OutcomeNotSwapped, 0)
	n.commit(t, c.set("k", "no")) // Low says that old was answered
	refusedWith(t, n.commit(t, retry(old))[0], apply.ErrInvalidCommand)
	bad := c.set("k", "x")
	bad.Low = bad.Number + 1
	refusedWith(t, n.commit(t, bad)[0], apply.ErrInvalidCommand)
}

// crowd makes MaxOrigins other origins write.
func crowd(t testing.TB, n *node, name string) {
	t.Helper()
	var cmds []apply.Command
	for i := range apply.MaxOrigins {
		cmds = append(cmds, newClient(fmt.Sprint(name, i)).set("crowd", "x"))
	}
	n.commit(t, cmds...)
}

func TestGroup_ForgetsOriginsInTheEnd(t *testing.T) {
	fs := memFS(t)
	n := lead(t, small(fs))
	c := newClient("a")
	cmd := c.cmd(apply.ReprMerge([]byte("k"), []byte("x")))
	first := n.commit(t, cmd)[0]
	crowd(t, n, "first ")
	check := func() {
		t.Helper()
		want(t, n.commit(t, retry(cmd))[0], apply.OutcomeForgotten, 0)
		// Sent first when the origin knew of all that was forgotten: it was
		// never logged.
		fresh := c.set("fresh", "x")
		fresh.Since = n.log.Last()
		want(t, n.group(retry(fresh))[0], apply.OutcomeDone, n.log.Last()+1)
		must(t, n.g.Discard())
	}
	check()
	must(t, n.end(false))
	n = lead(t, small(fs))
	check()

	// The origin writes again and is known again; what it wrote before is not.
	next := c.set("other", "x")
	next.Low, next.Since = cmd.Number, first.Seq
	n.commit(t, next)
	for range 2 {
		want(t, n.commit(t, retry(cmd))[0], apply.OutcomeForgotten, 0)
		must(t, n.end(false))
		n = lead(t, small(fs))
	}
	if v := n.get(t, "k"); v != "x" {
		t.Fatalf("k is %q: the command took effect again", v)
	}
}

func TestGroup_RefusesBatches(t *testing.T) {
	n := lead(t, small(memFS(t)))
	c := newClient("a")
	mine := []byte(apply.ReservedPrefix + "applied\x00")
	count := apply.ReprSet([]byte("k"), nil)
	binary.LittleEndian.PutUint32(count[8:], 2)
	unknown := append(make([]byte, 8), 1, 0, 0, 0, 0xee, 1, 'k')
	for _, x := range []struct {
		name string
		repr []byte
		err  error
	}{
		{"RangeKeySet", batch(t, func(b *pebble.Batch) error { return b.RangeKeySet([]byte("a"), []byte("b"), nil, nil, nil) }), apply.ErrUnsupported},
		{"RangeKeyUnset", batch(t, func(b *pebble.Batch) error { return b.RangeKeyUnset([]byte("a"), []byte("b"), nil, nil) }), apply.ErrUnsupported},
		{"RangeKeyDelete", batch(t, func(b *pebble.Batch) error { return b.RangeKeyDelete([]byte("a"), []byte("b"), nil) }), apply.ErrUnsupported},
		{"DeleteSized", batch(t, func(b *pebble.Batch) error { return b.DeleteSized([]byte("a"), 3, nil) }), apply.ErrUnsupported},
		{"LogData", batch(t, func(b *pebble.Batch) error { return b.LogData([]byte("a"), nil) }), apply.ErrUnsupported},
		{"IngestSST", append(make([]byte, 8), 1, 0, 0, 0, byte(pebble.InternalKeyKindIngestSST), 1, 7), apply.ErrUnsupported},
		{"unknown kind", unknown, apply.ErrUnsupported},
		{"reserved Set", apply.ReprSet(mine, nil), apply.ErrReservedKey},
		{"reserved Delete", apply.ReprDelete(mine), apply.ErrReservedKey},
		{"reserved Merge", apply.ReprMerge(mine, nil), apply.ErrReservedKey},
		{"reserved SingleDelete", batch(t, func(b *pebble.Batch) error { return b.SingleDelete(mine, nil) }), apply.ErrReservedKey},
		{"count", count, apply.ErrInvalidBatch},
		{"short header", make([]byte, 11), apply.ErrInvalidBatch},
		{"nil", nil, apply.ErrInvalidBatch},
		{"truncated", apply.ReprSet([]byte("k"), []byte("value"))[:16], apply.ErrInvalidBatch},
		{"too large", make([]byte, apply.MaxBatch+1), apply.ErrTooLarge},
	} {
		t.Run(x.name, func(t *testing.T) {
			refusedWith(t, n.commit(t, c.cmd(x.repr))[0], x.err)
			if len(n.g.Entries()) != 0 {
				t.Fatal("something was logged")
			}
		})
	}
	last := n.log.Last()
	empty := c.cmd(make([]byte, 12))
	empty.Sync = true
	want(t, n.group(empty)[0], apply.OutcomeDone, last)
	if !n.g.Sync() || len(n.g.Entries()) != 0 {
		t.Fatal("an empty batch with Sync makes durable what was before, and logs nothing")
	}
	must(t, n.finish())
}

func TestGroup_JudgesConditions(t *testing.T) {
	n := lead(t, small(memFS(t)))
	c := newClient("a")
	set := func(v string) []byte { return apply.ReprSet([]byte("k"), []byte(v)) }
	yes := func(cmds ...apply.Command) {
		t.Helper()
		a := n.commit(t, cmds...)
		if a[len(a)-1].Outcome != apply.OutcomeDone {
			t.Fatalf("%+v", a)
		}
	}
	no := func(cmds ...apply.Command) {
		t.Helper()
		a := n.commit(t, cmds...)
		want(t, a[len(a)-1], apply.OutcomeNotSwapped, 0)
	}
	no(c.cas("k", "", set("x"))) // absent is not empty
	yes(c.cas("k", nil, set("")))
	no(c.cas("k", nil, set("x"))) // empty is not absent
	yes(c.cas("k", "", set("1")))
	no(c.cas("k", "2", set("x")))
	// Earlier writes of the same group are seen.
	yes(c.set("k", "2"), c.cas("k", "2", set("3")))
	yes(c.cas("k", "3", set("4")), c.cas("k", "4", set("5")))
	no(c.cas("k", "5", set("6")), c.cas("k", "5", set("x")))
	yes(c.cmd(apply.ReprMerge([]byte("k"), []byte("m"))), c.cas("k", "6m", set("7")))
	yes(c.cmd(apply.ReprDeleteRange([]byte("a"), []byte("z"))), c.cas("k", nil, set("8")))
	yes(c.cas("other", nil, set("9")), c.cmd(apply.ReprDeleteRange([]byte("a"), []byte("z"))), c.cas("k", nil, set("10")))
	yes(c.cas("k", "10", apply.ReprDelete([]byte("k"))), c.cas("k", nil, set("11")))
	yes(c.cmd(batch(t, func(b *pebble.Batch) error { return b.SingleDelete([]byte("k"), nil) })), c.cas("k", nil, set("12")))
	if v := n.get(t, "k"); v != "12" {
		t.Fatalf("k is %q", v)
	}
	// Our own keys are absent, whatever they hold.
	yes(c.cas(apply.ReservedPrefix+"applied\x00", nil, set("13")))
	no(c.cas(apply.ReservedPrefix+"applied\x00", "x", set("14")))
}

func TestGroup_DiscardLeavesNothing(t *testing.T) {
	n := lead(t, small(memFS(t)))
	c := newClient("a")
	n.commit(t, c.set("k", "1"))
	before, last := dump(t, n.m, func([]byte) bool { return true }), n.log.Last()
	cmd := c.set("k", "2")
	n.group(cmd, c.cas("k", "2", apply.ReprDelete([]byte("k"))), newClient("b").set("x", "y"))
	must(t, n.g.Discard())
	same(t, "after Discard", dump(t, n.m, func([]byte) bool { return true }), before)
	want(t, n.commit(t, retry(cmd))[0], apply.OutcomeDone, last+1)
}

func TestGroup_TimeNeverGoesBack(t *testing.T) {
	fs := memFS(t)
	n := lead(t, small(fs))
	c := newClient("a")
	at := func(want int64) {
		t.Helper()
		n.commit(t, c.set("k", "v"))
		e, err := apply.DecodeEntry(n.g.Entries()[0])
		must(t, err)
		if !e.Time.Equal(time.Unix(0, want)) {
			t.Fatalf("time is %v, want %v", e.Time.UnixNano(), want)
		}
	}
	n.clock = 5e9
	at(5e9 + 1e6)
	n.clock = 1e9
	at(5e9 + 1e6)
	must(t, n.end(false))
	n = lead(t, small(fs))
	at(5e9 + 1e6)
}
