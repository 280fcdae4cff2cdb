package party_test

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// BenchmarkLocalReads measures a follower that reads its own replica of 100,000
// keys of 116 bytes, beside Pebble in this process with the same keys. Another
// process leads. Pebble made the database; so iterate has the same tables on both
// sides, one sorted run, until something is written. While others write, 16 goroutines of this process do, without a
// sync, as fast as they can; Pebble beside it is read while they do. open is the
// time from Open until reads are local, beside a checkpoint of Pebble that is
// opened.
//
//	go test ./party -run '^$' -bench LocalReads
func BenchmarkLocalReads(b *testing.B) {
	plain := floorPebble(b)
	r := newRigOn(b, plain)
	ctx := b.Context()
	openLocal := func() *party.DB {
		db, err := party.Open(ctx, r.dir, &party.Options{LocalReads: true})
		must(b, err)
		readsLocally(b, db)
		return db
	}
	db := openLocal()
	b.Cleanup(func() { must(b, db.Close()) })
	get := func(i int) {
		_, err := db.Get(ctx, benchKey(i%benchKeys))
		must(b, err)
	}
	floor := func(i int) {
		v, c, err := plain.Get(benchKey(i % benchKeys))
		must(b, err)
		_ = append([]byte(nil), v...)
		must(b, c.Close())
	}
	for i := range benchKeys { // both caches are warm
		get(i)
		floor(i)
	}
	b.Run("get", func(b *testing.B) { pairs(b, get, floor) })
	b.Run("get-64", func(b *testing.B) {
		rounds(b, 64, func(g, i int) { get(g*1000 + i) }, func(g, i int) { floor(g*1000 + i) })
	})
	b.Run("iterate", func(b *testing.B) { iterates(b, db.NewIter, plain) })
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			other := openLocal()
			b.StopTimer()
			must(b, other.Close())
			b.StartTimer()
		}
	})
	b.Run("get-after-write", func(b *testing.B) {
		value := make([]byte, 100)
		pairs(b, get, func(i int) { must(b, r.db.Set(ctx, benchKey(i%benchKeys), value, pebble.NoSync)) })
	})
	b.Run("get-while-others-write", func(b *testing.B) {
		stop := make(chan struct{})
		var writers sync.WaitGroup
		value := make([]byte, 100)
		for g := range 16 {
			writers.Go(func() {
				for i := g; ; i += 16 {
					select {
					case <-stop:
						return
					default:
						must(b, r.db.Set(ctx, benchKey(i%benchKeys), value, pebble.NoSync))
					}
				}
			})
		}
		pairs(b, get, floor)
		close(stop)
		writers.Wait()
	})
}
