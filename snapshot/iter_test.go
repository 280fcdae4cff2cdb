package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// An iterator that is moved any way is where a cursor over the list of all keys is.
func TestIter_AgreesWithModel(t *testing.T) {
	for _, o := range orderings() {
		t.Run(o.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 9))
			m, all := filled(t, o, rng)
			mine := aroundReserved()
			some := func() []byte { // a key, one near it, one of ours, or none
				switch k := all[rng.IntN(len(all))].Key; rng.IntN(5) {
				case 0:
					return nil
				case 1:
					return o.key(fmt.Sprintf("%c", 'A'+rng.IntN(26)))
				case 2:
					if o.name == "cockroachkvs" {
						return k // it knows none of ours
					}
					return mine[rng.IntN(len(mine))]
				default:
					return k
				}
			}
			for range 200 {
				b := snapshot.Bounds{Lower: some(), Upper: some()}
				it, err := snapshot.NewIter(m, b, o.cmp)
				must(t, err)
				seen := model(o.cmp, all, b, snapshot.Position{})
				walkLikeModel(t, it, seen, rng, some, func(p snapshot.Position) int { return len(model(o.cmp, all, b, p)) })
				must(t, it.Close())
				if t.Failed() {
					t.Fatalf("%+v", b)
				}
			}
		})
	}
}

// walkLikeModel moves it any way, and an index into all that it sees likewise. key
// returns keys to seek, and behind how many of those it sees a walk has before it.
func walkLikeModel(t testing.TB, it *snapshot.Iter, seen []snapshot.Pair, rng *rand.Rand, key func() []byte, behind func(snapshot.Position) int) {
	t.Helper()
	at := len(seen)
	for move := range 60 {
		n := rng.IntN(8)
		if move == 0 {
			n = rng.IntN(3) // it stands nowhere
		}
		var ok bool
		var err error
		switch n {
		case 0:
			ok, at = it.First(), 0
		case 1:
			ok, at = it.Last(), len(seen)-1
		case 2:
			p := snapshot.Position{From: key(), Reverse: rng.IntN(2) == 0, After: rng.IntN(2) == 0}
			if at = len(seen) - behind(p); p.Reverse {
				at = behind(p) - 1
			}
			ok, err = it.Seek(p)
			must(t, err)
		case 3, 4, 5:
			quick := at >= 0 && at < len(seen) && it.Plain() && rng.IntN(2) == 0
			ok, at = quick && it.Forth() || it.Next(), min(at+1, len(seen))
		default:
			quick := at >= 0 && at < len(seen) && it.Plain() && rng.IntN(2) == 0
			ok, at = quick && it.Back() || it.Prev(), max(at-1, -1)
		}
		must(t, it.Error())
		if there := at >= 0 && at < len(seen); ok != there {
			t.Errorf("move %d: %t, the model is at %d of %d", n, ok, at, len(seen))
			return
		}
		if !ok {
			continue
		}
		value, err := it.Value()
		must(t, err)
		if !bytes.Equal(it.Key(), seen[at].Key) || !bytes.Equal(value, seen[at].Value) {
			t.Errorf("move %d: it is at %q, the model at %q", n, it.Key(), seen[at].Key)
			return
		}
	}
}

// aroundReserved are keys around the reserved ones in byte order, and some of those.
func aroundReserved() [][]byte {
	p := apply.ReservedPrefix
	var keys [][]byte
	for _, k := range []string{
		"\xff", "\xff\xff", "\xff\xffpebbleparty", "\xff\xffpebblepartx\xff", p, p + "applied\x00", p + "id\x00", p + "\xff\xff",
		"\xff\xffpebbleparty\x01", "\xff\xffpebbleparty\x01\x00", "\xff\xffq", "\xff\xff\xff",
	} {
		keys = append(keys, []byte(k))
	}
	return keys
}

// Whatever is in front of the reserved keys, among them and behind them, in whatever
// tables: an iterator gives the first and the last of these.
func TestIter_PassesOverReservedKeys(t *testing.T) {
	for _, cmp := range []*pebble.Comparer{pebble.DefaultComparer, reversed()} {
		t.Run(cmp.Name, func(t *testing.T) {
			for seed := range uint64(25) {
				rng := rand.New(rand.NewPCG(seed, 17))
				db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Comparer: cmp, Logger: silent{}})
				must(t, err)
				keys := append(aroundReserved(), []byte("a"), []byte("b"), []byte("\xfe"))
				some := func() []byte { return keys[rng.IntN(len(keys))] }
				has := make(map[string]string)
				for i := range rng.IntN(30) {
					switch k := some(); rng.IntN(8) {
					case 0:
						must(t, db.Delete(k, pebble.NoSync))
						delete(has, string(k))
					case 1:
						must(t, db.Flush())
					default:
						has[string(k)] = fmt.Sprint(i)
						must(t, db.Set(k, fmt.Append(nil, i), pebble.NoSync))
					}
				}
				var all []snapshot.Pair
				for k, v := range has {
					if !apply.IsReserved([]byte(k)) {
						all = append(all, snapshot.Pair{Key: []byte(k), Value: []byte(v)})
					}
				}
				slices.SortFunc(all, func(a, b snapshot.Pair) int { return cmp.Compare(a.Key, b.Key) })
				var b snapshot.Bounds
				for range 30 {
					b = snapshot.Bounds{}
					if rng.IntN(2) == 0 {
						b.Lower = some()
					}
					if rng.IntN(2) == 0 {
						b.Upper = some()
					}
					given := snapshot.Bounds{Lower: bytes.Clone(b.Lower), Upper: bytes.Clone(b.Upper)}
					it, err := snapshot.NewIter(db, given, cmp)
					must(t, err)
					clear(given.Lower) // the caller's again
					clear(given.Upper)
					seen := model(cmp, all, b, snapshot.Position{})
					walkLikeModel(t, it, seen, rng, some, func(p snapshot.Position) int { return len(model(cmp, all, b, p)) })
					must(t, it.Close())
					if t.Failed() {
						break
					}
				}
				must(t, db.Close())
				if t.Failed() {
					t.Fatalf("seed %d, %+v", seed, b)
				}
			}
		})
	}
}

func TestIter_RefusesKeysTheComparerDoesNotKnow(t *testing.T) {
	o := orderings()[1]
	m, all := filled(t, o, rand.New(rand.NewPCG(1, 9)))
	bad := []byte("k\xf0")
	for _, b := range []snapshot.Bounds{{Lower: bad}, {Upper: bad}} {
		if _, err := snapshot.NewIter(m, b, o.cmp); !errors.Is(err, snapshot.ErrMalformed) {
			t.Errorf("%+v: %v", b, err)
		}
	}
	it, err := snapshot.NewIter(m, snapshot.Bounds{}, o.cmp)
	must(t, err)
	if ok, err := it.Seek(snapshot.Position{From: bad}); ok || !errors.Is(err, snapshot.ErrMalformed) {
		t.Errorf("seek: %t, %v", ok, err)
	}
	var keys [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		keys = append(keys, bytes.Clone(it.Key()))
	}
	if !slices.EqualFunc(keys, all, func(k []byte, p snapshot.Pair) bool { return bytes.Equal(k, p.Key) }) {
		t.Errorf("it gives %d keys", len(keys))
	}
	must(t, it.Close())
}
