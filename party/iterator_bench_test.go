package party_test

import (
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// BenchmarkIterator measures iterators of a follower, and of the leader itself,
// beside Pebble's own over the same keys in this process, in turn; and the first
// key beside a bare NATS request.
//
//	go test ./party -run '^$' -bench Iterator
func BenchmarkIterator(b *testing.B) {
	r := newRig(b)
	leader, err := party.Open(b.Context(), b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = leader.Close() })
	fillBench(b, func(batch *pebble.Batch) error {
		_, err := leader.Apply(b.Context(), batch, pebble.NoSync)
		return err
	})
	p, err := pebble.Open(b.TempDir(), &pebble.Options{Logger: quiet{}, FS: vfs.Default, Cache: pebble.NewCache(64 << 20)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	fillBench(b, func(batch *pebble.Batch) error { return p.Apply(batch, pebble.NoSync) })
	if err := p.Flush(); err != nil {
		b.Fatal(err)
	}
	for _, reverse := range []bool{false, true} {
		way := "forwards"
		if reverse {
			way = "backwards"
		}
		floor := func(int) { walkPebble(b, p, reverse) }
		b.Run("follower-"+way+"/pebble", func(b *testing.B) {
			pairs(b, func(int) { walkAll(b, r.db, reverse) }, floor)
		})
		b.Run("leader-"+way+"/pebble", func(b *testing.B) {
			pairs(b, func(int) { walkAll(b, leader, reverse) }, floor)
		})
	}
	request := func(i int) { r.request(b, benchKey(i)) }
	first := func(f func(i int, it *party.Iterator) bool) func(i int) {
		return func(i int) {
			it, err := r.db.NewIter(b.Context(), nil)
			if err != nil {
				b.Fatal(err)
			}
			if !f(i, it) {
				b.Error("no key: ", it.Error())
			}
			if err := it.Close(); err != nil {
				b.Error(err)
			}
		}
	}
	b.Run("first/request", func(b *testing.B) {
		pairs(b, first(func(_ int, it *party.Iterator) bool { return it.First() }), request)
	})
	b.Run("seek/request", func(b *testing.B) {
		it, err := r.db.NewIter(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer it.Close()
		pairs(b, func(i int) {
			if !it.SeekGE(benchKey(i % benchKeys)) {
				b.Error("no key: ", it.Error())
			}
		}, request)
	})
}

// BenchmarkIteratorMemory is what a leader has in memory for each of 1,000
// iterators of another process: heap and stacks after a collection.
func BenchmarkIteratorMemory(b *testing.B) {
	const iterators = 1000
	dir := b.TempDir()
	db, err := party.Open(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	fillBench(b, func(batch *pebble.Batch) error {
		_, err := db.Apply(b.Context(), batch, pebble.NoSync)
		return err
	})
	p := start(b, config{Dir: dir})
	memory := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	p.do(request{Op: "iterate", N: 10}) // what is made once
	for b.Loop() {
		before := memory()
		p.do(request{Op: "iterate", N: iterators})
		b.ReportMetric((memory()-before)/iterators, "B/iterator")
	}
	b.ReportMetric(0, "ns/op")
	s, err := db.Status(b.Context())
	if err != nil || s.Iterators < iterators {
		b.Fatal(s.Iterators, err)
	}
}

func fillBench(b *testing.B, apply func(*pebble.Batch) error) {
	b.Helper()
	value := make([]byte, 100)
	for i := 0; i < benchKeys; i += 1000 {
		var batch pebble.Batch
		for j := i; j < i+1000; j++ {
			if err := batch.Set(benchKey(j), value, nil); err != nil {
				b.Fatal(err)
			}
		}
		if err := apply(&batch); err != nil {
			b.Fatal(err)
		}
	}
}

func walkAll(b *testing.B, db *party.DB, reverse bool) {
	it, err := db.NewIter(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	n, bytes := 0, 0
	if reverse {
		for ok := it.Last(); ok; ok = it.Prev() {
			n, bytes = n+1, bytes+len(it.Key())+len(it.Value())
		}
	} else {
		for ok := it.First(); ok; ok = it.Next() {
			n, bytes = n+1, bytes+len(it.Key())+len(it.Value())
		}
	}
	if err := it.Close(); err != nil || n != benchKeys || bytes != benchKeys*116 {
		b.Fatalf("%d keys, %d bytes, %v", n, bytes, err)
	}
}

func walkPebble(b *testing.B, p *pebble.DB, reverse bool) {
	it, err := p.NewIter(nil)
	if err != nil {
		b.Fatal(err)
	}
	n, bytes := 0, 0
	if reverse {
		for ok := it.Last(); ok; ok = it.Prev() {
			n, bytes = n+1, bytes+len(it.Key())+len(it.Value())
		}
	} else {
		for ok := it.First(); ok; ok = it.Next() {
			n, bytes = n+1, bytes+len(it.Key())+len(it.Value())
		}
	}
	if err := it.Close(); err != nil || n != benchKeys || bytes != benchKeys*116 {
		b.Fatalf("%d keys, %d bytes, %v", n, bytes, err)
	}
}
