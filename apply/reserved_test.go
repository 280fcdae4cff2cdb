package apply_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// reversed orders keys the other way round, but for the empty one.
func reversed() *pebble.Comparer {
	compare := func(a, b []byte) int {
		if len(a) == 0 || len(b) == 0 {
			return len(a) - len(b)
		}
		return bytes.Compare(b, a)
	}
	c := *pebble.DefaultComparer
	c.Name = "reversed"
	c.Compare, c.ComparePointSuffixes, c.CompareRangeSuffixes = compare, compare, compare
	c.Split = func([]byte) int { return 0 } // all of a key is suffix: prefixes must be in byte order
	c.AbbreviatedKey = func([]byte) uint64 { return 0 }
	c.Separator = func(dst, a, _ []byte) []byte { return append(dst, a...) }
	c.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	c.ImmediateSuccessor = nil
	return &c
}

func TestMachine_KeepsReservedKeysUnderAnyComparer(t *testing.T) {
	plain := func(s string) []byte { return []byte(s) }
	for _, x := range []struct {
		name       string
		cmp        *pebble.Comparer
		key        func(string) []byte
		start, end []byte
	}{
		{"default", pebble.DefaultComparer, plain, []byte{0}, []byte("\xff\xff\xff\xff")},
		{"cockroachkvs", &cockroachkvs.Comparer,
			func(s string) []byte { return cockroachkvs.EncodeMVCCKey(nil, []byte(s), uint64(len(s)), 0) },
			[]byte("\x01\x00"), []byte("\xff\xff\xff\xff\x00")},
		{"reversed", reversed(), plain, []byte("\xff\xff\xff\xff"), []byte{0}},
	} {
		t.Run(x.name, func(t *testing.T) {
			fs := memFS(t)
			options := func() *pebble.Options {
				o := small(fs)
				o.Comparer = x.cmp
				if x.name == "cockroachkvs" {
					o.FormatMajorVersion = pebble.FormatNewest // columnar blocks, by its own schema
					o.KeySchema = cockroachkvs.KeySchema.Name
					o.KeySchemas = map[string]*pebble.KeySchema{o.KeySchema: &cockroachkvs.KeySchema}
				}
				return o
			}
			n := lead(t, options())
			c := newClient("a")
			var all []apply.Command
			for i := range 30 {
				all = append(all, c.cmd(apply.ReprSet(x.key(fmt.Sprintf("k%02d", i)), []byte("v"))))
			}
			n.commit(t, all...)
			must(t, n.m.Flush(nil))
			before := len(dump(t, n.m, apply.IsReserved))
			wipe := c.cmd(apply.ReprDeleteRange(x.start, x.end))
			first := n.commit(t, wipe, c.cmd(apply.ReprSet(x.key("left"), []byte("w"))))
			must(t, n.m.Flush(nil))
			if after := len(dump(t, n.m, apply.IsReserved)); after != before {
				t.Fatalf("%d reserved keys, %d before DeleteRange", after, before)
			}
			if left := userKeys(t, n.m); !slices.Equal(left, []pair{{string(x.key("left")), "w"}}) {
				t.Fatalf("left: %q", left)
			}
			for _, p := range dump(t, n.m, apply.IsReserved) {
				if _, err := n.m.Get(nil, []byte(p.key)); !errors.Is(err, pebble.ErrNotFound) {
					t.Fatalf("Get shows %q", p.key)
				}
			}
			id, applied := n.m.ID(), n.m.Applied()
			must(t, n.end(false))
			n = lead(t, options())
			if n.m.ID() != id || n.m.Applied() <= applied {
				t.Fatalf("id %v, applied %d after reopening; %v, %d before", n.m.ID(), n.m.Applied(), id, applied)
			}
			want(t, n.commit(t, retry(wipe))[0], apply.OutcomeRefused, 0) // the next command said it was answered
			if first[0].Outcome != apply.OutcomeDone {
				t.Fatal(first)
			}
		})
	}
}

func TestGroup_RefusesKeysTheComparerDoesNotKnow(t *testing.T) {
	o := small(memFS(t))
	o.Comparer = &cockroachkvs.Comparer
	o.KeySchema = cockroachkvs.KeySchema.Name
	o.KeySchemas = map[string]*pebble.KeySchema{o.KeySchema: &cockroachkvs.KeySchema}
	n := lead(t, o)
	c := newClient("a")
	good, bad := cockroachkvs.EncodeMVCCKey(nil, []byte("k"), 1, 0), []byte("k\xf0")
	refusedWith(t, n.commit(t, c.cmd(apply.ReprSet(bad, nil)))[0], apply.ErrInvalidBatch)
	refusedWith(t, n.commit(t, c.cmd(apply.ReprDeleteRange(good, bad)))[0], apply.ErrInvalidBatch)
	refusedWith(t, n.commit(t, c.cas(string(bad), nil, apply.ReprSet(good, nil)))[0], apply.ErrInvalidCommand)
	if _, err := n.m.Get(nil, bad); !errors.Is(err, apply.ErrInvalidCommand) {
		t.Fatal(err)
	}
}

// longest is a merger that keeps the longest value.
type longest struct{ v []byte }

func (l *longest) MergeNewer(v []byte) error {
	if len(v) > len(l.v) {
		l.v = bytes.Clone(v)
	}
	return nil
}
func (l *longest) MergeOlder(v []byte) error {
	if len(v) >= len(l.v) {
		l.v = bytes.Clone(v)
	}
	return nil
}
func (l *longest) Finish(bool) ([]byte, io.Closer, error) { return l.v, nil, nil }

var longestMerger = &pebble.Merger{Name: "longest", Merge: func(_, v []byte) (pebble.ValueMerger, error) {
	return &longest{bytes.Clone(v)}, nil
}}

func TestMachine_NamesIncompatibleComparerAndMerger(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.Comparer, o.Merger = reversed(), longestMerger
	n := lead(t, o)
	c := newClient("a")
	merge := func(v string) apply.Command { return c.cmd(apply.ReprMerge([]byte("k"), []byte(v))) }
	a := n.commit(t, merge("bb"), merge("aaaa"), c.cas("k", "aaaa", apply.ReprMerge([]byte("k"), []byte("c"))))
	if v := n.get(t, "k"); v != "aaaa" || a[2].Outcome != apply.OutcomeDone {
		t.Fatalf("k is %q, %v", v, a)
	}
	must(t, n.end(true))
	for _, x := range []struct {
		cmp        *pebble.Comparer
		merger     *pebble.Merger
		mine, file string
	}{
		{nil, longestMerger, pebble.DefaultComparer.Name, "reversed"},
		{reversed(), nil, pebble.DefaultMerger.Name, "longest"},
	} {
		o := small(fs)
		o.Comparer, o.Merger = x.cmp, x.merger
		_, err := join(o, eventlog.Options{})
		if !errors.Is(err, apply.ErrIncompatible) || !strings.Contains(err.Error(), x.mine) || !strings.Contains(err.Error(), x.file) {
			t.Errorf("%v; want both %q and %q", err, x.mine, x.file)
		}
	}
}

func TestMachine_AdoptsPlainPebbleAndGivesBack(t *testing.T) {
	fs := memFS(t)
	db, err := pebble.Open(dbDir, small(fs))
	must(t, err)
	must(t, db.Set([]byte("flushed"), []byte("1"), pebble.Sync))
	must(t, db.Flush())
	must(t, db.Set([]byte("in the log"), []byte("2"), pebble.Sync))
	killed := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, db.Close())
	for _, x := range []struct {
		name string
		fs   *vfs.MemFS
	}{{"closed", fs}, {"killed", killed}} {
		t.Run(x.name, func(t *testing.T) {
			must(t, x.fs.MkdirAll("/db/party", 0o700))
			n := lead(t, small(x.fs))
			n.commit(t, newClient("a").set("ours", "3"))
			want := []pair{{"flushed", "1"}, {"in the log", "2"}, {"ours", "3"}}
			same(t, "adopted", userKeys(t, n.m), want)
			must(t, n.end(true))
			// Without the log, by plain Pebble, after a power cut.
			db, err := pebble.Open(dbDir, small(x.fs.CrashClone(vfs.CrashCloneCfg{})))
			must(t, err)
			for _, p := range want {
				v, closer, err := db.Get([]byte(p.key))
				must(t, err)
				if string(v) != p.value {
					t.Errorf("%s is %q", p.key, v)
				}
				must(t, closer.Close())
			}
			must(t, db.Close())
		})
	}
}

func TestMachine_RefusesToAdoptOurOwnPrefix(t *testing.T) {
	fs := memFS(t)
	db, err := pebble.Open(dbDir, small(fs))
	must(t, err)
	must(t, db.Set([]byte(apply.ReservedPrefix+"mine"), nil, pebble.Sync))
	must(t, db.Close())
	if _, err := join(small(fs), eventlog.Options{}); !errors.Is(err, apply.ErrReservedKey) {
		t.Fatal(err)
	}
}
