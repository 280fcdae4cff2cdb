package snapshot_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var log0 = time.Unix(1, 0)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

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
	c.Split = func([]byte) int { return 0 }
	c.AbbreviatedKey = func([]byte) uint64 { return 0 }
	c.Separator = func(dst, a, _ []byte) []byte { return append(dst, a...) }
	c.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	c.ImmediateSuccessor = nil
	return &c
}

// ordering is a comparer and keys for it, some of them on both sides of ours.
type ordering struct {
	name string
	cmp  *pebble.Comparer
	key  func(string) []byte
}

func orderings() []ordering {
	plain := func(s string) []byte { return []byte(s) }
	return []ordering{
		{"default", pebble.DefaultComparer, plain},
		{"cockroachkvs", &cockroachkvs.Comparer, func(s string) []byte {
			return cockroachkvs.EncodeMVCCKey(nil, []byte(s), uint64(len(s)%2), 0)
		}},
		{"reversed", reversed(), plain},
	}
}

func keySchema() (string, map[string]*pebble.KeySchema) {
	name := cockroachkvs.KeySchema.Name
	return name, map[string]*pebble.KeySchema{name: &cockroachkvs.KeySchema}
}

// filled returns a machine with some keys and some sessions of ours, part of it
// flushed, and what callers may see, in order.
func filled(t testing.TB, o ordering, rng *rand.Rand) (*apply.Machine, []snapshot.Pair) {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("/db/party", 0o700))
	po := &pebble.Options{FS: fs, Comparer: o.cmp, MemTableSize: 64 << 10}
	if o.name == "cockroachkvs" {
		po.FormatMajorVersion = pebble.FormatNewest // columnar blocks, by its own schema
		po.KeySchema, po.KeySchemas = keySchema()
	}
	lock, err := pebble.LockDirectory("/db", fs)
	must(t, err)
	m, err := apply.Open("/db", po, lock, slog.New(slog.DiscardHandler))
	must(t, err)
	log, err := eventlog.Open("/db/party/log", eventlog.Options{FS: fs})
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(m.Close(false), log.Abort(), lock.Close())) })
	err = m.Recover(log)
	must(t, err)
	must(t, m.CatchUp(t.Context()))
	_, seq, err := log.StartTerm(log0)
	must(t, err)
	must(t, m.ApplyTerm(seq))
	var pairs []snapshot.Pair
	var g apply.Group
	for i := range 60 {
		name := fmt.Sprintf("%c key %02d", "\x01a\xfe\xff"[i%4], i)
		if i%4 == 3 {
			name = fmt.Sprintf("\xff\xff%c%02d", "ax\xff"[i%3], i) // around the reserved prefix
		}
		size := rng.IntN(40)
		if i%20 == 7 {
			size = 200_000
		}
		p := snapshot.Pair{Key: o.key(name), Value: bytes.Repeat([]byte{byte(i)}, size)}
		pairs = append(pairs, p)
		m.Begin(&g, log.Last()+1, log0)
		c := apply.Command{Number: 1, Low: 1, Repr: apply.ReprSet(p.Key, p.Value)}
		binary.LittleEndian.PutUint64(c.Origin[:], uint64(i))
		if a := g.Judge(&c); a.Outcome != apply.OutcomeDone {
			t.Fatalf("%+v", a)
		}
		_, err := log.Append(g.Entries(), false)
		must(t, err)
		must(t, m.Apply(&g))
		if i == 30 {
			must(t, m.Flush(nil))
		}
	}
	slices.SortFunc(pairs, func(a, b snapshot.Pair) int { return o.cmp.Compare(a.Key, b.Key) })
	return m, pairs
}

// wired returns b and p as they come over the wire.
func wired(t testing.TB, b snapshot.Bounds, p snapshot.Position) (snapshot.Bounds, snapshot.Position) {
	t.Helper()
	var bounds snapshot.Bounds
	var position snapshot.Position
	rest, err := position.Decode(append(b.Append(p.Append(nil)), "rest"...))
	must(t, err)
	rest, err = bounds.Decode(rest)
	must(t, err)
	if string(rest) != "rest" {
		t.Fatalf("%q is left", rest)
	}
	return bounds, position
}

// model returns what a walk from p sees of all.
func model(cmp *pebble.Comparer, all []snapshot.Pair, b snapshot.Bounds, p snapshot.Position) (want []snapshot.Pair) {
	for _, pair := range all {
		out := b.Lower != nil && cmp.Compare(pair.Key, b.Lower) < 0 || b.Upper != nil && cmp.Compare(pair.Key, b.Upper) >= 0
		if p.From != nil {
			c := cmp.Compare(pair.Key, p.From)
			out = out || p.Reverse && c >= 0 || !p.Reverse && (c < 0 || c == 0 && p.After)
		}
		if out {
			continue
		}
		if b.KeysOnly {
			pair.Value = nil
		}
		want = append(want, pair)
	}
	if p.Reverse {
		slices.Reverse(want)
	}
	return want
}

// walk reads pages to the end, or only as many as that, and compares them.
func walk(t testing.TB, c *snapshot.Cursor, want []snapshot.Pair, limit int, keysOnly bool, pages int) {
	t.Helper()
	whole := []int{0, limit, 3 * limit}[pages%3]
	var parts []byte
	for last := false; !last && pages > 0; pages-- {
		var pairs []snapshot.Pair
		b, end, err := c.Page([]byte("before"), limit, whole)
		must(t, err)
		b = bytes.TrimPrefix(b, []byte("before"))
		last = end == snapshot.Last
		split := end == snapshot.Part || len(parts) > 0
		if len(b) > max(limit, whole) || end == snapshot.Part && len(b) > limit {
			t.Fatalf("a page of %d bytes, the limit is %d, %d for one pair", len(b), limit, whole)
		}
		parts = append(parts, b...)
		if end == snapshot.Part {
			continue
		}
		pairs, err = snapshot.DecodePage(nil, parts, keysOnly)
		must(t, err)
		if (split || len(b) > limit) && len(pairs) != 1 {
			t.Fatalf("%d pairs in %d bytes, the limit is %d", len(pairs), len(parts), limit)
		}
		if len(pairs) == 0 && !last {
			t.Fatal("an empty page is not the last")
		}
		for _, p := range pairs {
			if len(want) == 0 || !bytes.Equal(p.Key, want[0].Key) || !bytes.Equal(p.Value, want[0].Value) {
				t.Fatalf("it gives %.40q, want %d more", p.Key, len(want))
			}
			want = want[1:]
		}
		if last != (len(want) == 0) {
			t.Fatalf("last is %t, and %d are to come", last, len(want))
		}
		parts = parts[:0]
	}
}

func TestCursor_PagesAgreeWithModel(t *testing.T) {
	for _, o := range orderings() {
		t.Run(o.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 9))
			m, all := filled(t, o, rng)
			some := func() []byte { // a key, one near it, or none
				switch k := all[rng.IntN(len(all))].Key; rng.IntN(4) {
				case 0:
					return nil
				case 1:
					return o.key(strings.ToUpper(fmt.Sprintf("%c", 'a'+rng.IntN(26))))
				default:
					return k
				}
			}
			rounds := 150
			if testing.Short() {
				rounds = 30
			}
			for range rounds {
				b := snapshot.Bounds{Lower: some(), Upper: some(), KeysOnly: rng.IntN(2) == 0}
				b, _ = wired(t, b, snapshot.Position{})
				c, err := snapshot.NewCursor(m, b, o.cmp)
				must(t, err)
				for range 4 { // walks, some of them not to the end
					p := snapshot.Position{From: some(), Reverse: rng.IntN(2) == 0, After: rng.IntN(2) == 0}
					_, p = wired(t, b, p)
					must(t, c.Seek(p))
					limit, pages := 1+rng.IntN(4)*rng.IntN(300), 1+rng.IntN(10)
					if rng.IntN(2) == 0 {
						pages = 1 << 30
						limit += 50
					}
					walk(t, c, model(o.cmp, all, b, p), limit, b.KeysOnly, pages)
				}
				must(t, c.Close())
			}
		})
	}
}

func TestCursor_SeesOneMoment(t *testing.T) {
	o := orderings()[0]
	m, all := filled(t, o, rand.New(rand.NewPCG(1, 9)))
	c, err := snapshot.NewCursor(m, snapshot.Bounds{}, o.cmp)
	must(t, err)
	var g apply.Group
	m.Begin(&g, m.Applied()+1, log0)
	command := apply.Command{Number: 1, Low: 1, Repr: apply.ReprDeleteRange([]byte{0}, []byte("\xff\xff\xff\xff"))}
	command.Origin[9] = 1
	if a := g.Judge(&command); a.Outcome != apply.OutcomeDone {
		t.Fatalf("%+v", a)
	}
	must(t, m.Apply(&g))
	for _, p := range []snapshot.Position{{}, {Reverse: true}, {From: all[9].Key, Reverse: true}, {From: all[9].Key, After: true}} {
		must(t, c.Seek(p))
		walk(t, c, model(o.cmp, all, snapshot.Bounds{}, p), 1000, false, 1<<30)
	}
	must(t, c.Close())
	c, err = snapshot.NewCursor(m, snapshot.Bounds{}, o.cmp)
	must(t, err)
	must(t, c.Seek(snapshot.Position{}))
	walk(t, c, nil, 1000, false, 1<<30)
	must(t, c.Close())
}

func TestCursor_SkipsReservedKeysWithinBounds(t *testing.T) {
	for _, o := range orderings() {
		m, all := filled(t, o, rand.New(rand.NewPCG(1, 9)))
		mine := []byte(apply.ReservedPrefix + "id\x00")
		for _, b := range []snapshot.Bounds{{}, {Lower: mine}, {Upper: mine}, {Lower: mine, Upper: []byte(apply.ReservedPrefix + "s\x00")}} {
			if b.Upper != nil && b.Lower != nil && o.cmp.Compare(b.Lower, b.Upper) > 0 {
				b.Lower, b.Upper = b.Upper, b.Lower
			}
			c, err := snapshot.NewCursor(m, b, o.cmp)
			must(t, err)
			for _, p := range []snapshot.Position{{}, {From: mine}, {From: mine, After: true}} {
				for _, p.Reverse = range []bool{false, true} {
					must(t, c.Seek(p))
					walk(t, c, model(o.cmp, all, b, p), 1<<20, false, 1<<30)
				}
			}
			must(t, c.Close())
		}
	}
}

func TestCursor_RefusesKeysTheComparerDoesNotKnow(t *testing.T) {
	o := orderings()[1]
	m, _ := filled(t, o, rand.New(rand.NewPCG(1, 9)))
	bad := []byte("k\xf0")
	for _, b := range []snapshot.Bounds{{Lower: bad}, {Upper: bad}} {
		if _, err := snapshot.NewCursor(m, b, o.cmp); !errors.Is(err, snapshot.ErrMalformed) {
			t.Errorf("%+v: %v", b, err)
		}
	}
	c, err := snapshot.NewCursor(m, snapshot.Bounds{}, o.cmp)
	must(t, err)
	if err := c.Seek(snapshot.Position{From: bad}); !errors.Is(err, snapshot.ErrMalformed) {
		t.Errorf("seek: %v", err)
	}
	must(t, c.Close())
}

func FuzzPosition(f *testing.F) {
	f.Add((&snapshot.Position{}).Append(nil))
	f.Add((&snapshot.Position{From: []byte{}, Reverse: true}).Append([]byte{}))
	f.Add((&snapshot.Bounds{Lower: []byte("a"), KeysOnly: true}).Append((&snapshot.Position{From: []byte("b"), After: true}).Append(nil)))
	f.Add([]byte{0x80, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, src []byte) {
		var p, p2 snapshot.Position
		rest, err := p.Decode(src)
		if err != nil {
			return
		}
		if _, err := p2.Decode(p.Append(nil)); err != nil || !reflect.DeepEqual(p, p2) {
			t.Fatalf("%+v became %+v, %v", p, p2, err)
		}
		var b, b2 snapshot.Bounds
		if _, err = b.Decode(rest); err != nil {
			return
		}
		if _, err := b2.Decode(b.Append(nil)); err != nil || !reflect.DeepEqual(b, b2) {
			t.Fatalf("%+v became %+v, %v", b, b2, err)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add([]byte{1, 'k', 2, 'v', 'v'}, false)
	f.Add([]byte{1, 'k', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, false)
	f.Fuzz(func(t *testing.T, src []byte, keysOnly bool) {
		pairs, err := snapshot.DecodePage(nil, src, keysOnly)
		if err != nil {
			return
		}
		size := 0
		for _, p := range pairs {
			size += len(p.Key) + len(p.Value)
		}
		if size > len(src) {
			t.Fatalf("%d bytes of pairs in %d", size, len(src))
		}
	})
}
