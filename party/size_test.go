package party_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// huge is never touched, so it costs no memory. It is made once: memory that is used again would be cleared first; and only
// when it is needed: with so much alive, no garbage is collected in what benchmarks measure.
var huge = sync.OnceValue(func() []byte { return make([]byte, party.MaxBatch+1) })

func tooLarge(t *testing.T, db *party.DB) {
	ctx := within(t)
	k := []byte("k")
	huge := huge()
	want(t, db.Set(ctx, k, huge, nil), party.ErrTooLarge)
	want(t, db.Set(ctx, huge, nil, nil), party.ErrTooLarge)
	want(t, db.Merge(ctx, k, huge, nil), party.ErrTooLarge)
	want(t, db.Delete(ctx, huge, nil), party.ErrTooLarge)
	want(t, db.DeleteRange(ctx, k, huge, nil), party.ErrTooLarge)
	_, err := db.CompareAndSwap(ctx, k, huge, nil, nil)
	want(t, err, party.ErrTooLarge)
	_, err = db.CompareAndSwap(ctx, k, nil, huge, nil)
	want(t, err, party.ErrTooLarge)
	if has, err := db.Has(ctx, k); has || err != nil {
		t.Errorf("Has after refused writes: %t, %v", has, err)
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range min(n, 251) { // a prime, so that no shifted piece looks the same
		b[i] = byte(i)
	}
	for done := min(n, 251); done > 0 && done < n; done *= 2 {
		copy(b[done:], b[:done])
	}
	return b
}

func sizes(t *testing.T, db *party.DB) {
	ctx := within(t)
	list := []int{1, 100, 1<<20 - 100, 1 << 20, 5 << 20}
	if raceEnabled {
		list[4] = 2<<20 + 1 // still in pieces; the race detector makes every byte dear
	}
	var keys [][]byte
	for _, n := range list {
		key := fmt.Appendf(nil, "size %08d", n)
		keys = append(keys, key)
		value := pattern(n)
		must(t, db.Set(ctx, key, value, pebble.NoSync))
		v, err := db.Get(ctx, key)
		must(t, err)
		if !bytes.Equal(v, value) {
			t.Errorf("a value of %d bytes came back as another of %d", n, len(v))
		}
		if swapped, err := db.CompareAndSwap(ctx, key, value, value, pebble.NoSync); !swapped || err != nil {
			t.Errorf("a value of %d bytes: swapped %t, %v", n, swapped, err)
		}
	}
	values, err := db.GetMany(ctx, keys)
	must(t, err)
	for i, n := range list {
		if !bytes.Equal(values[i], pattern(n)) {
			t.Errorf("GetMany: %d bytes for a value of %d", len(values[i]), n)
		}
	}
	i := 0
	it, err := db.NewIter(ctx, nil)
	must(t, err)
	for k, v := range it.All() {
		if i == len(keys) || !bytes.Equal(k, keys[i]) || len(v) != list[i] {
			t.Fatalf("iterator: %q with %d bytes", k, len(v))
		}
		i++
	}
	must(t, it.Close())
	key := pattern(1<<20 + 1)
	must(t, db.Set(ctx, key, []byte("v"), pebble.NoSync))
	expect(t, db, string(key), "v")
}

func largeBatch(t *testing.T, db *party.DB) {
	ctx := within(t)
	var b pebble.Batch
	var keys [][]byte
	entries := 10_000
	if raceEnabled {
		entries = 6000 // still longer than a message
	}
	for i := range entries {
		keys = append(keys, fmt.Appendf(nil, "key %06d", i))
		must(t, b.Set(keys[i], fmt.Appendf(nil, "value %200d", i), nil))
	}
	_, err := db.Apply(ctx, &b, nil)
	must(t, err)
	values, err := db.GetMany(ctx, keys)
	must(t, err)
	for i, v := range values {
		if string(v) != fmt.Sprintf("value %200d", i) {
			t.Fatalf("key %d is %q", i, v)
		}
	}
}

func TestDB_TakesHundredMegabytes(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("100 MB through a socket take long: run it without -race and -short")
	}
	dir := t.TempDir()
	leader := open(t, dir, nil)
	follower := open(t, dir, nil)
	value := pattern(100 << 20)
	must(t, follower.Set(within(t), []byte("big"), value, nil))
	for name, db := range map[string]*party.DB{"leader": leader, "follower": follower} {
		v, err := db.Get(within(t), []byte("big"))
		if err != nil || !bytes.Equal(v, value) {
			t.Errorf("%s: %d bytes, %v", name, len(v), err)
		}
	}
}
