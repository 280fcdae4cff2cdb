package party_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// What subscriptions cost and how fast they are, beside floors of the same run:
//
//	go test ./party -run '^$' -bench Subscribe -benchtime 10x

const benchSubscriberEnv = "PARTY_BENCH_SUBSCRIBER"

// init makes the test binary a process with subscriptions. Of the variable's
// fields the first is how many, the second their bounds (empty: none), the rest
// the directory. With no bounds it prints the median time in nanoseconds from the
// moment in an event's value to its arrival once it sees an empty value.
func init() {
	what := os.Getenv(benchSubscriberEnv)
	if what == "" {
		return
	}
	fields := strings.SplitN(what, " ", 3)
	n, _ := strconv.Atoi(fields[0])
	if err := benchSubscriber(n, fields[1], fields[2]); err != nil {
		fmt.Fprintln(os.Stderr, "bench subscriber:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func benchSubscriber(n int, prefix, dir string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	db, err := party.Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	o := &party.SubscribeOptions{}
	if prefix != "-" {
		o.LowerBound, o.UpperBound = []byte(prefix), append([]byte(prefix), 0xff)
	}
	var all sync.WaitGroup
	for range n {
		s, err := db.Subscribe(ctx, o)
		if err != nil {
			return err
		}
		all.Go(func() {
			var times []int64
			for ev, err := range s.Events(ctx) {
				switch {
				case err != nil:
					return
				case len(ev.Ops[0].Value) > 0:
					times = append(times, time.Now().UnixNano()-int64(binary.LittleEndian.Uint64(ev.Ops[0].Value)))
				case len(times) > 0:
					slices.Sort(times)
					fmt.Println(times[len(times)/2])
					times = nil
				}
			}
		})
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	all.Wait()
	return db.Close()
}

// subscriber starts such a process and returns its output.
func subscriber(b *testing.B, n int, prefix, dir string) (lines *bufio.Reader, end func()) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", benchSubscriberEnv, n, prefix, dir))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	lines = bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil || line != "ready\n" {
		b.Fatalf("subscriber: %q, %v", line, err)
	}
	return lines, func() {
		must(b, in.Close())
		must(b, cmd.Wait())
	}
}

func median[T int64 | float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkSubscribe measures with the leader in another process than the writer,
// and the subscribers in yet others.
func BenchmarkSubscribe(b *testing.B) {
	r := newRig(b)
	ctx := b.Context()
	s, err := r.db.Status(ctx)
	must(b, err)
	if s.Role != party.Following {
		b.Fatal("the handle leads")
	}
	dir := r.dir
	value := make([]byte, 100)
	put := func(i int, o *pebble.WriteOptions) time.Duration {
		start := time.Now()
		v := bytes.Clone(value)
		binary.LittleEndian.PutUint64(v, uint64(start.UnixNano()))
		if err := r.db.Set(ctx, benchKey(i%benchKeys), v, o); err != nil {
			b.Error(err)
		}
		return time.Since(start)
	}
	// With a pause between them, in which whoever was woken comes to run: there are
	// more processes than processors.
	puts := func(o *pebble.WriteOptions) time.Duration {
		times := make([]time.Duration, 0, 500)
		for i := range cap(times) {
			times = append(times, put(i, o))
			time.Sleep(500 * time.Microsecond)
		}
		return median(times)
	}
	for name, o := range map[string]*pebble.WriteOptions{"sync": pebble.Sync, "nosync": pebble.NoSync} {
		b.Run("put-to-event-"+name+"/put", func(b *testing.B) {
			var alone, events []float64
			for b.Loop() {
				alone = append(alone, float64(puts(o).Nanoseconds())/1e3)
				lines, end := subscriber(b, 1, "-", dir)
				puts(o)
				must(b, r.db.Set(ctx, []byte("k"), nil, o))
				line, err := lines.ReadString('\n')
				must(b, err)
				ns, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
				must(b, err)
				events = append(events, ns/1e3)
				end()
			}
			p, e := median(alone), median(events)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(e, "µs-event-p50")
			b.ReportMetric(p, "µs-put-p50")
			b.ReportMetric(e/p, "x-floor")
		})
	}
	const slice = 500 * time.Millisecond
	throughput := func(n int, o *pebble.WriteOptions) float64 {
		var count atomic.Int64
		var all sync.WaitGroup
		start := time.Now()
		for g := range n {
			all.Go(func() {
				for i := g; time.Since(start) < slice; i += n {
					put(i, o)
					count.Add(1)
				}
			})
		}
		all.Wait()
		return float64(count.Load()) / time.Since(start).Seconds()
	}
	for _, c := range []struct {
		name string
		n    int
		o    *pebble.WriteOptions
	}{{"put-sync-1", 1, pebble.Sync}, {"put-nosync-1", 1, pebble.NoSync}, {"put-sync-64", 64, pebble.Sync}, {"put-nosync-64", 64, pebble.NoSync}} {
		b.Run("ten-idle-subscribers/"+c.name, func(b *testing.B) {
			var none, ten []float64
			for b.Loop() {
				none = append(none, throughput(c.n, c.o))
				var ends []func()
				for range 10 {
					_, end := subscriber(b, 1, "\xff\xfe", dir)
					ends = append(ends, end)
				}
				time.Sleep(100 * time.Millisecond) // they have settled
				ten = append(ten, throughput(c.n, c.o))
				for _, end := range ends {
					end()
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ten), "ops/s")
			b.ReportMetric(median(none), "floor-ops/s")
			b.ReportMetric(median(ten)/median(none), "x-floor")
		})
	}
}

// BenchmarkSubscription_CatchUp reads a log that is in the page cache: operations
// a second, beside reading the same files and their checksums and no more.
func BenchmarkSubscription_CatchUp(b *testing.B) {
	for _, c := range []struct {
		name    string
		batches int
		ops     int
	}{{"1-op-entries", 300_000, 1}, {"100-op-entries", 10_000, 100}} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			db := open(b, dir, &party.Options{Retention: party.Retention{MaxBytes: -1}})
			var all sync.WaitGroup
			for g := range 64 {
				all.Go(func() {
					for i := g; i < c.batches; i += 64 {
						var batch pebble.Batch
						for j := range c.ops {
							must(b, batch.Set(benchKey(j), make([]byte, 100), nil))
						}
						if _, err := db.Apply(b.Context(), &batch, pebble.NoSync); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			names, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
			must(b, err)
			total := float64(c.batches * c.ops)
			floor := func() {
				for _, name := range names {
					data, err := os.ReadFile(name)
					must(b, err)
					crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
				}
			}
			floor()
			var ops, floors []float64
			for b.Loop() {
				start := time.Now()
				floor()
				floors = append(floors, total/time.Since(start).Seconds())
				start = time.Now()
				s := subscribe(b, db, &party.SubscribeOptions{From: 1})
				for n := 0; n < int(total); {
					ev, err := s.Next(b.Context())
					if err != nil { // must would take a third of the time
						b.Fatal(err)
					}
					n += len(ev.Ops)
				}
				ops = append(ops, total/time.Since(start).Seconds())
				must(b, s.Close())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ops), "ops/s")
			b.ReportMetric(median(floors), "floor-ops/s")
			b.ReportMetric(median(floors)/median(ops), "x-floor")
		})
	}
}
