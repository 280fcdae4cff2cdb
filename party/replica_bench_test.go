package party_test

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// openKeys has BenchmarkLocalOpen open a larger database too:
//
//	go test ./party -run '^$' -bench LocalOpen -openkeys 10000000
//
// writes it to the disk first, 1.2 GB and a minute of work.
var openKeys = flag.Int("openkeys", 0, "number of keys of a further database that BenchmarkLocalOpen opens")

// putBatch is how many puts a batch of child.puts has.
const putBatch = 100

// puts writes that many keys a second until it is told to stop. It counts them as
// they are acknowledged.
func (p *child) puts(ctx context.Context, perSecond int) error {
	value := make([]byte, 100)
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	begin := time.Now()
	var next atomic.Int64 // number of the next batch
	for range 8 {
		all.Go(func() {
			for {
				n := next.Add(1)
				due := begin.Add(time.Duration(n) * putBatch * time.Second / time.Duration(perSecond))
				select {
				case <-p.stop:
					return
				case <-time.After(time.Until(due)):
				}
				var b pebble.Batch
				for i := range putBatch {
					if err := b.Set(benchKey((int(n)*putBatch+i)%benchKeys), value, nil); err != nil {
						failed.Store(&err)
						return
					}
				}
				if _, err := p.db.Apply(ctx, &b, pebble.Sync); err != nil {
					failed.Store(&err)
					return
				}
				p.acks.Add(putBatch)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// BenchmarkLocalReadsAmongWriters measures gets from a replica while another
// process puts 50,000 keys a second, durably and in batches of 100, beside gets of
// Pebble in this process; a third process leads. puts/s is what was reached.
//
//	go test ./party -run '^$' -bench LocalReadsAmongWriters
func BenchmarkLocalReadsAmongWriters(b *testing.B) {
	r := newRig(b)
	ctx := b.Context()
	plain := floorPebble(b)
	db, err := party.Open(ctx, r.dir, &party.Options{LocalReads: true})
	must(b, err)
	b.Cleanup(func() { must(b, db.Close()) })
	readsLocally(b, db)
	for _, rate := range []int{0, 50_000} {
		b.Run("puts="+strconv.Itoa(rate), func(b *testing.B) {
			writer := start(b, config{Dir: r.dir})
			acks := func() int { return writer.do(request{Op: "acks"}).N }
			var done <-chan answer
			if rate > 0 {
				done = writer.send(request{Op: "puts", N: rate})
				until(b, "the writer writes", func() bool { return acks() > rate/10 })
			}
			begin, before := time.Now(), acks()
			pairs(b, func(i int) {
				_, err := db.Get(ctx, benchKey(i%benchKeys))
				must(b, err)
			}, func(i int) {
				v, c, err := plain.Get(benchKey(i % benchKeys))
				must(b, err)
				_ = append([]byte(nil), v...)
				must(b, c.Close())
			})
			b.ReportMetric(float64(acks()-before)/time.Since(begin).Seconds(), "puts/s")
			if rate > 0 {
				writer.do(request{Op: "stop"})
				if a := receive(b, "the writer to stop", done); a.Err != "" {
					b.Error(a.Err)
				}
			}
		})
	}
}

// BenchmarkReplicasCostWriters measures 16 goroutines that put durably without
// replicas beside them, with four idle ones, and with four that are read a thousand
// times a second each. Another process leads; writers and replicas are in this one.
//
//	go test ./party -run '^$' -bench ReplicasCostWriters
func BenchmarkReplicasCostWriters(b *testing.B) {
	r := newRig(b)
	ctx := b.Context()
	value := make([]byte, 100)
	var dbs []*party.DB
	for range 4 {
		db, err := party.Open(ctx, r.dir, &party.Options{LocalReads: true})
		must(b, err)
		b.Cleanup(func() { must(b, db.Close()) })
		dbs = append(dbs, db)
	}
	write := func() float64 {
		var count atomic.Int64
		var all sync.WaitGroup
		begin := time.Now()
		for g := range 16 {
			all.Go(func() {
				for i := g; time.Since(begin) < 250*time.Millisecond; i += 16 {
					must(b, r.db.Set(ctx, benchKey(i%benchKeys), value, pebble.Sync))
					count.Add(1)
				}
			})
		}
		all.Wait()
		return float64(count.Load()) / time.Since(begin).Seconds()
	}
	var idle, beside, reading []float64
	for b.Loop() {
		beside = append(beside, write())
		for _, db := range dbs { // the replicas have all that was written
			readsLocally(b, db)
			_, err := db.Get(ctx, benchKey(0))
			must(b, err)
		}
		idle = append(idle, write())
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for _, db := range dbs {
			readers.Go(func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-tick.C:
						_, err := db.Get(ctx, benchKey(i%benchKeys))
						must(b, err)
					}
				}
			})
		}
		reading = append(reading, write())
		close(stop)
		readers.Wait()
	}
	median := func(x []float64) float64 { slices.Sort(x); return x[len(x)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(idle), "puts/s-idle")
	b.ReportMetric(median(reading), "puts/s-reading")
	b.ReportMetric(median(beside), "puts/s-after-a-rest")
	b.ReportMetric(median(reading)/median(idle), "x-reading")
}

// BenchmarkLocalOpen measures from Open to the first read from the replica of this
// process, beside a checkpoint of Pebble in process that is opened. Another process
// leads. The database was made by Pebble: ascending keys, and values that do not
// compress.
//
//	go test ./party -run '^$' -bench LocalOpen
func BenchmarkLocalOpen(b *testing.B) {
	for _, n := range []int{100_000, *openKeys} {
		if n == 0 {
			continue
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			key := func(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(i)) }
			plain, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}, CacheSize: 64 << 20})
			must(b, err)
			value := make([]byte, 100)
			rng := rand.NewChaCha8([32]byte{})
			for i := range n {
				_, _ = rng.Read(value)
				must(b, plain.Set(key(i), value, pebble.NoSync))
			}
			must(b, plain.Flush())
			var floors []time.Duration
			for i := range 10 {
				begin := time.Now()
				copied := filepath.Join(b.TempDir(), strconv.Itoa(i))
				must(b, plain.Checkpoint(copied))
				db, err := pebble.Open(copied, &pebble.Options{Logger: quiet{}, CacheSize: 64 << 20})
				must(b, err)
				_, c, err := db.Get(key(n / 2))
				must(b, err)
				floors = append(floors, time.Since(begin))
				must(b, c.Close())
				must(b, db.Close())
			}
			must(b, plain.Close())
			start(b, config{Dir: dir})
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				db, err := party.Open(b.Context(), dir, &party.Options{LocalReads: true})
				must(b, err)
				readsLocally(b, db)
				_, err = db.Get(b.Context(), key(n/2))
				must(b, err)
				took = append(took, time.Since(begin))
				b.StopTimer()
				must(b, db.Close())
				b.StartTimer()
			}
			slices.Sort(took)
			slices.Sort(floors)
			o, f := took[len(took)/2], floors[len(floors)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(o.Microseconds())/1e3, "ms-p50")
			b.ReportMetric(float64(f.Microseconds())/1e3, "ms-floor-p50")
			b.ReportMetric(float64(o)/float64(f), "x-floor")
		})
	}
}
