package party_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/embednats"
	"github.com/pebbleparty/pebbleparty/party"
)

// The benchmarks measure a follower, with the leader in another process, beside
// floors of the same run: a bare NATS request over the same bridge to that
// process, a write + fdatasync of a preallocated file, and Pebble's own
// Set(Sync) in process. The machine's noise hits both alike; read the ratios.
//
//	go test ./party -run '^$' -bench Follower

const benchEnv = "PARTY_BENCH_LEADER"

// init makes the test binary a leader when a benchmark starts it as one.
func init() {
	dir := os.Getenv(benchEnv)
	if dir == "" {
		return
	}
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench leader:", err)
			os.Exit(1)
		}
	}
	db, err := party.Open(context.Background(), filepath.Join(dir, "db"), nil)
	must(err)
	s, err := embednats.Start(embednats.Options{})
	must(err)
	must(os.Mkdir(filepath.Join(dir, "floor"), 0o700))
	nc, err := s.Connect()
	must(err)
	answer := make([]byte, 100)
	_, err = nc.Subscribe("floor", func(m *nats.Msg) { _ = m.Respond(answer) })
	must(err)
	must(nc.Flush())
	addr, err := s.Listen(filepath.Join(dir, "floor"))
	must(err)
	fmt.Println(addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
	must(db.Close())
	must(s.Close())
	os.Exit(0)
}

const benchKeys = 100_000

func benchKey(i int) []byte {
	k := make([]byte, 16)
	binary.BigEndian.PutUint64(k, uint64(i)*0x9e3779b97f4a7c15)
	return k
}

// rig is a follower in this process, its leader in another, and the floors.
type rig struct {
	dir  string // of the database
	db   *party.DB
	nc   *nats.Conn
	file *os.File // preallocated
	off  int64
}

func newRig(b *testing.B) *rig {
	b.Helper()
	r := joinRig(b, b.TempDir())
	value := make([]byte, 100)
	for i := 0; i < benchKeys; i += 1000 {
		var batch pebble.Batch
		for j := i; j < i+1000; j++ {
			if err := batch.Set(benchKey(j), value, nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := r.db.Apply(b.Context(), &batch, pebble.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	r.prepare(b)
	return r
}

// newRigOn is newRig for a database that is a copy of p, which has the keys.
func newRigOn(b *testing.B, p *pebble.DB) *rig {
	b.Helper()
	dir := b.TempDir()
	if err := p.Checkpoint(filepath.Join(dir, "db")); err != nil {
		b.Fatal(err)
	}
	r := joinRig(b, dir)
	r.prepare(b)
	return r
}

// joinRig starts the other process on dir and follows it.
func joinRig(b *testing.B, dir string) *rig {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error("leader:", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal("leader did not start: ", err)
	}
	r := &rig{dir: filepath.Join(dir, "db")}
	if r.nc, _, err = embednats.Dial(b.Context(), filepath.Join(dir, "floor"), embednats.Address(line[:len(line)-1])); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.nc.Close)
	if r.db, err = party.Open(b.Context(), r.dir, nil); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.db.Close(); err != nil {
			b.Error(err)
		}
	})
	if r.file, err = os.Create(filepath.Join(dir, "floor.log")); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.file.Close() })
	return r
}

// prepare warms what a floor has warm.
func (r *rig) prepare(b *testing.B) {
	b.Helper()
	// A warm cache, as a floor that reads nothing deserves.
	keys := make([][]byte, 1000)
	for i := 0; i < benchKeys; i += len(keys) {
		for j := range keys {
			keys[j] = benchKey(i + j)
		}
		if _, err := r.db.GetMany(b.Context(), keys); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := r.file.Write(make([]byte, 16<<20)); err != nil {
		b.Fatal(err)
	}
	if err := r.file.Sync(); err != nil {
		b.Fatal(err)
	}
}

func (r *rig) request(tb testing.TB, key []byte) {
	if _, err := r.nc.Request("floor", key, 10*time.Second); err != nil {
		tb.Error(err)
	}
}

// fsync is the least that a durable write of one entry costs.
func (r *rig) fsync(tb testing.TB) {
	if _, err := r.file.WriteAt(make([]byte, 208), r.off); err != nil {
		tb.Error(err)
	}
	r.off = (r.off + 208) % (15 << 20)
	if err := syncData(r.file); err != nil {
		tb.Error(err)
	}
}

// pairs runs op and floor in turn and reports both medians and their ratio.
func pairs(b *testing.B, op, floor func(i int)) {
	ops, floors := make([]time.Duration, 0, b.N), make([]time.Duration, 0, b.N)
	i := 0
	for b.Loop() {
		start := time.Now()
		floor(i)
		mid := time.Now()
		op(i)
		ops, floors = append(ops, time.Since(mid)), append(floors, mid.Sub(start))
		i++
	}
	slices.Sort(ops)
	slices.Sort(floors)
	o, f := ops[len(ops)/2], floors[len(floors)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(o.Nanoseconds())/1e3, "µs-p50")
	b.ReportMetric(float64(ops[len(ops)*99/100].Nanoseconds())/1e3, "µs-p99")
	b.ReportMetric(float64(f.Nanoseconds())/1e3, "µs-floor-p50")
	b.ReportMetric(float64(o)/float64(f), "x-floor")
}

// rounds runs op and floor from n goroutines, in turn for a quarter of a second
// each, and reports operations a second and their ratio.
func rounds(b *testing.B, n int, op, floor func(g, i int)) {
	const slice = 250 * time.Millisecond
	var ops, floors []float64
	run := func(f func(g, i int)) float64 {
		var count atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		for g := range n {
			wg.Go(func() {
				for i := 0; time.Since(start) < slice; i++ {
					f(g, i)
					count.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(count.Load()) / time.Since(start).Seconds()
	}
	for b.Loop() {
		floors = append(floors, run(floor))
		ops = append(ops, run(op))
	}
	slices.Sort(ops)
	slices.Sort(floors)
	o, f := ops[len(ops)/2], floors[len(floors)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(o, "ops/s")
	b.ReportMetric(f, "floor-ops/s")
	b.ReportMetric(o/f, "x-floor")
}

func BenchmarkFollower(b *testing.B) {
	r := newRig(b)
	ctx := b.Context()
	value := make([]byte, 100)
	get := func(i int) {
		if _, err := r.db.Get(ctx, benchKey(i%benchKeys)); err != nil {
			b.Error(err)
		}
	}
	put := func(i int, o *pebble.WriteOptions) {
		if err := r.db.Set(ctx, benchKey(i%benchKeys), value, o); err != nil {
			b.Error(err)
		}
	}
	spread := func(g, i int) int { return g*1_000_003 + i*7919 }
	b.Run("get-1/request", func(b *testing.B) {
		pairs(b, get, func(i int) { r.request(b, benchKey(i)) })
	})
	b.Run("put-sync-1/request+fdatasync", func(b *testing.B) {
		pairs(b, func(i int) { put(i, pebble.Sync) }, func(i int) { r.request(b, benchKey(i)); r.fsync(b) })
	})
	b.Run("put-nosync-1/request", func(b *testing.B) {
		pairs(b, func(i int) { put(i, pebble.NoSync) }, func(i int) { r.request(b, benchKey(i)) })
	})
	for _, n := range []int{64, 256} {
		b.Run(fmt.Sprintf("get-%d/request", n), func(b *testing.B) {
			rounds(b, n, func(g, i int) { get(spread(g, i)) }, func(g, i int) { r.request(b, benchKey(i)) })
		})
		b.Run(fmt.Sprintf("put-sync-%d/pebble", n), func(b *testing.B) {
			p, err := pebble.Open(b.TempDir(), &pebble.Options{Logger: quiet{}, FS: vfs.Default})
			if err != nil {
				b.Fatal(err)
			}
			rounds(b, n, func(g, i int) { put(spread(g, i), pebble.Sync) }, func(g, i int) {
				if err := p.Set(benchKey(spread(g, i)%benchKeys), value, pebble.Sync); err != nil {
					b.Error(err)
				}
			})
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("put-nosync-%d/request", n), func(b *testing.B) {
			rounds(b, n, func(g, i int) { put(spread(g, i), pebble.NoSync) }, func(g, i int) { r.request(b, benchKey(i)) })
		})
	}
}

// quiet keeps Pebble's log out of the figures.
type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
