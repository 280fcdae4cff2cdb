package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// An iterator that is moved any way is where a cursor over the list of all keys is.
func TestIter_AgreesWithModel(t *testing.T) {
	for _, o := range orderings() {
		t.Run(o.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 9))
			m, all := filled(t, o, rng)
			mine := []byte(apply.ReservedPrefix + "id\x00")
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
					return mine
				default:
					return k
				}
			}
			for range 200 {
				b := snapshot.Bounds{Lower: some(), Upper: some()}
				it, err := snapshot.NewIter(m, b, o.cmp)
				must(t, err)
				seen := model(o.cmp, all, b, snapshot.Position{})
				at := len(seen)
				for move := range 60 {
					n := rng.IntN(8)
					if move == 0 {
						n = rng.IntN(3) // it stands nowhere
					}
					var ok bool
					switch n {
					case 0:
						ok, at = it.First(), 0
					case 1:
						ok, at = it.Last(), len(seen)-1
					case 2:
						p := snapshot.Position{From: some(), Reverse: rng.IntN(2) == 0, After: rng.IntN(2) == 0}
						rest := len(model(o.cmp, all, b, p))
						if at = len(seen) - rest; p.Reverse {
							at = rest - 1
						}
						ok, err = it.Seek(p)
						must(t, err)
					case 3, 4, 5:
						ok, at = it.Next(), min(at+1, len(seen))
					default:
						ok, at = it.Prev(), max(at-1, -1)
					}
					must(t, it.Error())
					if there := at >= 0 && at < len(seen); ok != there {
						t.Fatalf("move %d of %+v: %t, the model is at %d of %d", n, b, ok, at, len(seen))
					}
					if !ok {
						continue
					}
					value, err := it.Value()
					must(t, err)
					if !bytes.Equal(it.Key(), seen[at].Key) || !bytes.Equal(value, seen[at].Value) {
						t.Fatalf("move %d of %+v: it is at %q, the model at %q", n, b, it.Key(), seen[at].Key)
					}
				}
				must(t, it.Close())
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
