package party_test

import (
	"bufio"
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

// init makes the test binary a process with a subscription. Of the variable's
// fields the first is the bounds' prefix, "-" for none, the second the directory.
func init() {
	what := os.Getenv(benchSubscriberEnv)
	if what == "" {
		return
	}
	prefix, dir, _ := strings.Cut(what, " ")
	if err := benchSubscriber(prefix, dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench subscriber:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// benchSubscriber does what it is told: "subscribe"; "close", which it answers
// with the median time in nanoseconds from the moment in an event's value to its
// arrival; and "ping". It says "ok" to the others, and "event" for each event.
func benchSubscriber(prefix, dir string) error {
	db, err := party.Open(context.Background(), dir, nil)
	if err != nil {
		return err
	}
	o := &party.SubscribeOptions{}
	if prefix != "-" {
		o.LowerBound, o.UpperBound = []byte(prefix), append([]byte(prefix), 0xff)
	}
	fmt.Println("ok")
	var s *party.Subscription
	result := make(chan int64, 1)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "ping":
			fmt.Println("ok")
			continue
		case "close":
			if err := s.Close(); err != nil {
				return err
			}
			fmt.Println(<-result)
			continue
		}
		if s, err = db.Subscribe(context.Background(), o); err != nil {
			return err
		}
		fmt.Println("ok")
		go func() {
			times := []int64{0}
			for ev, err := range s.Events(context.Background()) {
				if err != nil {
					break
				}
				if v := ev.Ops[0].Value; len(v) > 0 {
					times = append(times, time.Now().UnixNano()-int64(binary.LittleEndian.Uint64(v)))
				}
				fmt.Println("event")
			}
			result <- median(times)
		}()
	}
	return db.Close()
}

// benchProcess is such a process.
type benchProcess struct {
	b   *testing.B
	in  io.WriteCloser
	out *bufio.Reader
}

func newBenchProcess(b *testing.B, prefix, dir string) *benchProcess {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", benchSubscriberEnv, prefix, dir))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		must(b, in.Close())
		must(b, cmd.Wait())
	})
	p := &benchProcess{b, in, bufio.NewReader(out)}
	p.expect("ok")
	return p
}

func (p *benchProcess) line() string {
	p.b.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.b.Fatal("subscriber: ", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *benchProcess) expect(want string) {
	p.b.Helper()
	if got := p.line(); got != want {
		p.b.Fatalf("subscriber says %q, not %q", got, want)
	}
}

func (p *benchProcess) subscribe() { p.tell("subscribe") }
func (p *benchProcess) ping()      { p.tell("ping") }

func (p *benchProcess) tell(what string) {
	p.b.Helper()
	must(p.b, writeLine(p.in, what))
	p.expect("ok")
}

// close returns the median time of events.
func (p *benchProcess) close() time.Duration {
	p.b.Helper()
	must(p.b, writeLine(p.in, "close"))
	ns, err := strconv.ParseInt(p.line(), 10, 64)
	must(p.b, err)
	return time.Duration(ns)
}

func writeLine(w io.Writer, s string) error {
	_, err := io.WriteString(w, s+"\n")
	return err
}

func median[T int64 | float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkSubscribe measures with the leader in another process than the writer,
// and the subscribers in yet others. What is compared is measured in turns, so
// that a machine which becomes faster or slower meanwhile does so for both; the
// factor is the median of those of the turns.
func BenchmarkSubscribe(b *testing.B) {
	r := newRig(b)
	ctx := b.Context()
	s, err := r.db.Status(ctx)
	must(b, err)
	if s.Role != party.Following {
		b.Fatal("the handle leads")
	}
	put := func(i int, o *pebble.WriteOptions) time.Duration {
		start := time.Now()
		v := make([]byte, 100)
		binary.LittleEndian.PutUint64(v, uint64(start.UnixNano()))
		if err := r.db.Set(ctx, benchKey(i%benchKeys), v, o); err != nil {
			b.Error(err)
		}
		return time.Since(start)
	}
	for _, c := range []struct {
		name string
		o    *pebble.WriteOptions
	}{{"sync", pebble.Sync}, {"nosync", pebble.NoSync}} {
		b.Run("put-to-event-"+c.name, func(b *testing.B) {
			p := newBenchProcess(b, "-", r.dir)
			// The next put begins when that process has the event, or has answered a ping, so
			// that the processors were as idle before it with an event as without; and
			// after a read, in which the subscriber comes to wait again.
			puts := func(after func()) time.Duration {
				times := make([]time.Duration, 0, 150)
				for i := range cap(times) {
					times = append(times, put(i, c.o))
					after()
					_, err := r.db.Has(ctx, benchKey(i))
					must(b, err)
				}
				return median(times)
			}
			var alone, beside, events, factors []float64
			for b.Loop() {
				before := puts(p.ping)
				p.subscribe()
				with := puts(func() { p.expect("event") })
				event := p.close()
				floor := (before + puts(p.ping)) / 2
				alone = append(alone, float64(floor.Nanoseconds())/1e3)
				beside = append(beside, float64(with.Nanoseconds())/1e3)
				events = append(events, float64(event.Nanoseconds())/1e3)
				factors = append(factors, float64(event)/float64(floor))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(events), "µs-event-p50")
			b.ReportMetric(median(beside), "µs-its-put-p50")
			b.ReportMetric(median(alone), "µs-put-alone-p50")
			b.ReportMetric(median(factors), "x-floor")
		})
	}
	const slice = 300 * time.Millisecond
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
	prefix := strings.Repeat("\xff", 17) // longer than the keys of the measured writes
	for _, c := range []struct {
		name string
		n    int
		o    *pebble.WriteOptions
	}{{"put-sync-1", 1, pebble.Sync}, {"put-nosync-1", 1, pebble.NoSync}, {"put-sync-64", 64, pebble.Sync}, {"put-nosync-64", 64, pebble.NoSync}} {
		b.Run("ten-idle-subscribers/"+c.name, func(b *testing.B) {
			processes := make([]*benchProcess, 10)
			for i := range processes {
				processes[i] = newBenchProcess(b, prefix, r.dir)
			}
			var none, ten, factors []float64
			for b.Loop() {
				floor := throughput(c.n, c.o)
				for _, p := range processes {
					p.subscribe()
				}
				must(b, r.db.Set(ctx, []byte(prefix), nil, c.o))
				for _, p := range processes {
					p.expect("event") // it has waited, and does again
				}
				with := (throughput(c.n, c.o) + throughput(c.n, c.o)) / 2
				for _, p := range processes {
					p.close()
				}
				floor = (floor + throughput(c.n, c.o)) / 2
				none, ten, factors = append(none, floor), append(ten, with), append(factors, with/floor)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ten), "ops/s")
			b.ReportMetric(median(none), "floor-ops/s")
			b.ReportMetric(median(factors), "x-floor")
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
