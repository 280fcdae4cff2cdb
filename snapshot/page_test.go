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
	must(t, m.Recover(log, fs, "/db/party/log"))
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

// page reads a page over the wire, as a follower does.
func page(t testing.TB, m *apply.Machine, cmp *pebble.Comparer, r snapshot.Request) ([]snapshot.Pair, bool) {
	t.Helper()
	var wired snapshot.Request
	must(t, wired.Decode(r.Append(nil)))
	b, err := wired.Read([]byte("before"), m, cmp)
	must(t, err)
	pairs, last, err := snapshot.DecodePage(bytes.TrimPrefix(b, []byte("before")), r.KeysOnly)
	must(t, err)
	return pairs, last
}

func TestRequest_PagesAgreeWithModel(t *testing.T) {
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
			rounds := 400
			if testing.Short() {
				rounds = 60
			}
			for range rounds {
				r := snapshot.Request{
					Lower: some(), Upper: some(), From: some(), Reverse: rng.IntN(2) == 0, After: rng.IntN(2) == 0,
					KeysOnly: rng.IntN(2) == 0, Bytes: rng.IntN(4) * rng.IntN(300),
				}
				if r.Lower != nil && r.Upper != nil && o.cmp.Compare(r.Lower, r.Upper) > 0 {
					r.Lower, r.Upper = r.Upper, r.Lower
				}
				var want []snapshot.Pair
				for _, p := range all {
					out := r.Lower != nil && o.cmp.Compare(p.Key, r.Lower) < 0 || r.Upper != nil && o.cmp.Compare(p.Key, r.Upper) >= 0
					if r.From != nil {
						c := o.cmp.Compare(p.Key, r.From)
						out = out || r.Reverse && c >= 0 || !r.Reverse && (c < 0 || c == 0 && r.After)
					}
					if out {
						continue
					}
					if r.KeysOnly {
						p.Value = nil
					}
					want = append(want, p)
				}
				if r.Reverse {
					slices.Reverse(want)
				}
				// Page by page to the end.
				at := r
				for last := false; !last; {
					var pairs []snapshot.Pair
					pairs, last = page(t, m, o.cmp, at)
					size := 0
					for i, p := range pairs {
						if len(want) == 0 || !bytes.Equal(p.Key, want[0].Key) || !bytes.Equal(p.Value, want[0].Value) {
							t.Fatalf("%+v\ngives %q, want %d more", at, p.Key, len(want))
						}
						want = want[1:]
						if i > 0 && size >= max(r.Bytes, 1) {
							t.Fatalf("%+v\nthe page goes on after %d bytes", at, size)
						}
						size += len(binary.AppendUvarint(nil, uint64(len(p.Key)))) + len(p.Key)
						if !r.KeysOnly {
							size += len(binary.AppendUvarint(nil, uint64(len(p.Value)))) + len(p.Value)
						}
					}
					if !last && size < r.Bytes {
						t.Fatalf("%+v\nthe page ends after %d bytes", at, size)
					}
					if len(pairs) > 0 {
						at.From, at.After = bytes.Clone(pairs[len(pairs)-1].Key), true
					}
				}
				if len(want) > 0 {
					t.Fatalf("%+v\nends before %q", r, want[0].Key)
				}
			}
		})
	}
}

func TestRequest_SkipsReservedKeysWithinBounds(t *testing.T) {
	for _, o := range orderings() {
		m, _ := filled(t, o, rand.New(rand.NewPCG(1, 9)))
		mine := []byte(apply.ReservedPrefix + "id\x00")
		for _, reverse := range []bool{false, true} {
			for _, r := range []snapshot.Request{{Lower: mine}, {Upper: mine}, {From: mine}, {Lower: mine, Upper: []byte(apply.ReservedPrefix + "s\x00")}} {
				r.Reverse, r.Bytes = reverse, 1<<20
				if r.Upper != nil && r.Lower != nil && o.cmp.Compare(r.Lower, r.Upper) > 0 {
					r.Lower, r.Upper = r.Upper, r.Lower
				}
				pairs, _ := page(t, m, o.cmp, r)
				for _, p := range pairs {
					if apply.IsReserved(p.Key) {
						t.Fatalf("%s: %+v shows %q", o.name, r, p.Key)
					}
				}
			}
		}
	}
}

func TestRequest_RefusesKeysTheComparerDoesNotKnow(t *testing.T) {
	o := orderings()[1]
	m, _ := filled(t, o, rand.New(rand.NewPCG(1, 9)))
	bad := []byte("k\xf0")
	for _, r := range []snapshot.Request{{Lower: bad}, {Upper: bad}, {From: bad}} {
		if _, err := r.Read(nil, m, o.cmp); !errors.Is(err, snapshot.ErrMalformed) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add((&snapshot.Request{}).Append(nil))
	f.Add((&snapshot.Request{Lower: []byte("a"), Upper: []byte("b"), From: []byte{}, Reverse: true, Bytes: 70000}).Append(nil))
	f.Add((&snapshot.Request{KeysOnly: true, After: true, Bytes: 1 << 40}).Append(nil))
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, src []byte) {
		var r, again snapshot.Request
		if r.Decode(src) != nil {
			return
		}
		if err := again.Decode(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add([]byte{1}, true)
	f.Add([]byte{0, 1, 'k', 2, 'v', 'v'}, false)
	f.Add([]byte{1, 1, 'k', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, false)
	f.Fuzz(func(t *testing.T, src []byte, keysOnly bool) {
		pairs, last, err := snapshot.DecodePage(src, keysOnly)
		if err != nil {
			return
		}
		size := 1
		for _, p := range pairs {
			size += len(p.Key) + len(p.Value)
		}
		if size > len(src) || len(pairs) == 0 && !last {
			t.Fatalf("%d bytes of pairs in %d, last %v", size, len(src), last)
		}
	})
}
