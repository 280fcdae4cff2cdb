package party_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

const (
	failoverEnv = "PARTY_BENCH_WRITER"
	readsEnv    = "PARTY_BENCH_READS" // set: it gets instead
	largeEnv    = "PARTY_BENCH_LARGE" // set: it takes 500 MiB of memory once it leads
)

// A pause of a writer is due to a kill if it begins before that long after it.
const killTakes = 15 * time.Millisecond

// init makes the test binary one of the writers of BenchmarkFailover: it puts, or
// gets, without pause, and for each line on standard input, the time of a kill, it
// says when its calls went on: at the end of the longest pause that began around
// then.
func init() {
	dir := os.Getenv(failoverEnv)
	if dir == "" {
		return
	}
	var out sync.Mutex
	say := func(format string, a ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", a...)
	}
	db, err := party.Open(context.Background(), dir, &party.Options{Events: party.Events{
		RoleChanged: func(c party.RoleChange) {
			say("role %s %d", c.Role, os.Getpid())
			if c.Role == party.Leading && os.Getenv(largeEnv) != "" {
				time.AfterFunc(50*time.Millisecond, grow) // when the others write again
			}
		},
	}})
	if err != nil {
		say("error %v", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	var acks []time.Time // of the last seconds
	go func() {
		value := make([]byte, 100)
		for i := 0; ; i++ {
			key := benchKey(i * 7919 % benchKeys)
			var err error
			if os.Getenv(readsEnv) != "" {
				_, err = db.Get(context.Background(), key)
			} else {
				err = db.Set(context.Background(), key, value, pebble.Sync)
			}
			if err != nil {
				say("error %v", err)
				os.Exit(1)
			}
			mu.Lock()
			acks = append(acks, time.Now())
			if len(acks) > 1<<16 {
				acks = append(acks[:0], acks[1<<15:]...)
			}
			mu.Unlock()
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ns, err := strconv.ParseInt(in.Text(), 10, 64)
		if err != nil {
			os.Exit(1)
		}
		killed := time.Unix(0, ns)
		mu.Lock()
		i, _ := slices.BinarySearchFunc(acks, killed, time.Time.Compare)
		var gap time.Duration
		end := killed
		for j := max(i, 1); j < len(acks) && acks[j-1].Sub(killed) < killTakes; j++ {
			if d := acks[j].Sub(acks[j-1]); d > gap {
				gap, end = d, acks[j]
			}
		}
		mu.Unlock()
		say("resumed %d", end.Sub(killed).Nanoseconds())
	}
	os.Exit(0)
}

var grown []byte

// grow makes the process one of 500 MiB.
func grow() {
	grown = make([]byte, 500<<20)
	for i := 0; i < len(grown); i += os.Getpagesize() {
		grown[i] = 1
	}
}

type benchWriter struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	events chan string
}

func startWriter(b *testing.B, dir, env string) *benchWriter {
	b.Helper()
	w := &benchWriter{cmd: exec.Command(os.Args[0]), events: make(chan string, 1024)}
	w.cmd.Env = append(os.Environ(), failoverEnv+"="+dir, env)
	w.cmd.Stderr = os.Stderr
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(w.events)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.events <- s.Text()
		}
	}()
	return w
}

// next waits for a line that begins with word and returns the rest.
func (w *benchWriter) next(b *testing.B, word string) string {
	b.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-w.events:
			if !ok {
				b.Fatal("a writer died")
			}
			if strings.HasPrefix(line, "error") {
				b.Fatal(line)
			}
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				return rest
			}
		case <-deadline:
			b.Fatal("no answer from a writer, waiting for ", word)
		}
	}
}

// BenchmarkFailover kills the leader under three writing followers, again and
// again, and reports how long after the kill the first of them, and the last,
// had a call answered. Beside it stands the least it can take: until the
// connections of the dead end, and then to open Pebble in that directory.
func BenchmarkFailover(b *testing.B) {
	b.Run("new", func(b *testing.B) { benchmarkFailover(b, 1, "") })
	// With a log as long as it gets.
	b.Run("full-log", func(b *testing.B) { benchmarkFailover(b, 20, "") })
	// With readers in the place of the writers.
	b.Run("reads", func(b *testing.B) { benchmarkFailover(b, 1, readsEnv+"=1") })
	// With a leader whose memory takes the kernel a while to free.
	b.Run("large-leader", func(b *testing.B) { benchmarkFailover(b, 1, largeEnv+"=1") })
}

// benchmarkFailover is BenchmarkFailover on a database whose keys were all written so often.
func benchmarkFailover(b *testing.B, times int, env string) {
	dir := filepath.Join(b.TempDir(), "db")
	db, err := party.Open(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 100)
	for i := 0; i < times*benchKeys; i += 1000 {
		var batch pebble.Batch
		for j := i; j < i+1000; j++ {
			if err := batch.Set(benchKey(j%benchKeys), value, nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := db.Apply(b.Context(), &batch, pebble.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	var writers []*benchWriter
	for range 4 {
		w := startWriter(b, dir, env)
		writers = append(writers, w)
		if len(writers) == 1 {
			w.next(b, "role leading")
		} else {
			w.next(b, "role following")
		}
	}
	b.Cleanup(func() {
		for _, w := range writers {
			_ = w.in.Close()
			_ = w.cmd.Wait()
		}
	})
	var first, last, death []time.Duration
	leader := 0
	for b.Loop() {
		died := deathOf(b, dir)
		<-time.After(400 * time.Millisecond) // writes under way
		killed := time.Now()
		if err := writers[leader].cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		_ = writers[leader].cmd.Wait()
		_ = writers[leader].in.Close()
		death = append(death, (<-died).Sub(killed))
		writers = slices.Delete(writers, leader, leader+1)
		<-time.After(300 * time.Millisecond) // long past every failover
		var resumed []time.Duration
		for _, w := range writers {
			fmt.Fprintln(w.in, killed.UnixNano())
			ns, err := strconv.ParseInt(w.next(b, "resumed"), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			resumed = append(resumed, time.Duration(ns))
		}
		first, last = append(first, slices.Min(resumed)), append(last, slices.Max(resumed))
		w := startWriter(b, dir, env)
		writers = append(writers, w)
		w.next(b, "role following")
		st, err := statusOf(b, dir)
		if err != nil {
			b.Fatal(err)
		}
		leader = slices.IndexFunc(writers, func(w *benchWriter) bool { return w.cmd.Process.Pid == st.LeaderPID })
		if leader < 0 {
			b.Fatal("the leader is none of the writers: ", st.LeaderPID)
		}
	}
	for _, w := range writers {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
	}
	var floor []time.Duration
	for range 10 {
		start := time.Now()
		p, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
		if err != nil {
			b.Fatal(err)
		}
		floor = append(floor, time.Since(start))
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(floor)
	b.ReportMetric(floor[len(floor)/2].Seconds()*1e3, "ms-pebble-open")
	b.ReportMetric(0, "ns/op")
	for _, m := range []struct {
		name string
		d    []time.Duration
	}{{"death", death}, {"first", first}, {"last", last}} {
		slices.Sort(m.d)
		b.ReportMetric(m.d[len(m.d)/2].Seconds()*1e3, "ms-"+m.name+"-p50")
		b.ReportMetric(m.d[len(m.d)-1].Seconds()*1e3, "ms-"+m.name+"-max")
	}
}

// deathOf tells when a connection to the leader ends: nobody can know earlier that it
// was killed. The kernel first takes its memory apart.
func deathOf(b *testing.B, dir string) <-chan time.Time {
	b.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, "party", "nats.sock"))
	if err != nil {
		b.Fatal(err)
	}
	died := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		died <- time.Now()
		_ = conn.Close()
	}()
	return died
}

func statusOf(b *testing.B, dir string) (party.Status, error) {
	db, err := party.Open(b.Context(), dir, nil)
	if err != nil {
		return party.Status{}, err
	}
	st, err := db.Status(b.Context())
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	return st, err
}
