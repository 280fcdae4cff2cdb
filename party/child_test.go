package party_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// A second process is the test binary run again: it opens one handle, takes
// requests on its standard input, one line each, and answers on its standard
// output, in the order in which they are done. It ends with its input.
const childEnv = "PARTY_TEST_CHILD"

// config says what a child opens.
type config struct {
	Dir       string
	Sum       bool
	Backwards bool
	NoRetry   bool
	Local     bool
}

func (c config) options() *party.Options {
	o := &party.Options{NoRetry: c.NoRetry, LocalReads: c.Local, Pebble: &pebble.Options{Logger: silent{}}}
	if c.Sum {
		o.Pebble.Merger = sum
	}
	if c.Backwards {
		o.Pebble.Comparer = backwards
	}
	return o
}

type request struct {
	ID         int
	Op         string
	Key, Value []byte
	Old        []byte
	N          int
	Seed       uint64
	NoSync     bool
	Timeout    time.Duration
}

type answer struct {
	ID     int
	Err    string
	Is     []string // which of the known errors it is
	Value  []byte
	Done   bool
	N      int // what was asked to be counted
	Counts []int
	Status party.Status
}

var known = map[string]error{
	"closed": party.ErrClosed, "leader lost": party.ErrLeaderLost, "in use": party.ErrInUse,
	"incompatible": party.ErrIncompatible, "disk full": party.ErrDiskFull, "not found": pebble.ErrNotFound,
	"deadline": context.DeadlineExceeded, "too large": party.ErrTooLarge,
}

func (a *answer) fail(err error) {
	if err == nil {
		return
	}
	a.Err = err.Error()
	for name, e := range known {
		if errors.Is(err, e) {
			a.Is = append(a.Is, name)
		}
	}
}

func childMain(text string) int {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 2
	}
	p := &child{out: json.NewEncoder(os.Stdout), stop: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	db, err := party.Open(ctx, c.Dir, c.options())
	cancel()
	opened := answer{}
	opened.fail(err)
	p.send(opened)
	if err != nil {
		return 0
	}
	p.db = db
	var calls sync.WaitGroup
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			return 2
		}
		calls.Go(func() { p.serve(r) })
	}
	// The parent is done or dead.
	p.stopped.Do(func() { close(p.stop) })
	if err := db.Close(); err != nil && !errors.Is(err, party.ErrClosed) {
		fmt.Fprintln(os.Stderr, "child: close:", err)
		return 1
	}
	calls.Wait()
	return 0
}

type child struct {
	db      *party.DB
	stop    chan struct{} // closed: end what goes on and on
	stopped sync.Once
	acks    atomic.Int64
	snap    *party.Snapshot // of one request at a time

	mu  sync.Mutex
	out *json.Encoder
}

func (p *child) send(a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(a) // a parent that is gone closes our input too
}

func (p *child) serve(r request) {
	ctx := context.Background()
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	o := pebble.Sync
	if r.NoSync {
		o = pebble.NoSync
	}
	a := answer{ID: r.ID}
	var err error
	switch r.Op {
	case "get":
		a.Value, err = p.db.Get(ctx, r.Key)
	case "set":
		err = p.db.Set(ctx, r.Key, r.Value, o)
	case "merge":
		err = p.db.Merge(ctx, r.Key, r.Value, o)
	case "cas":
		a.Done, err = p.db.CompareAndSwap(ctx, r.Key, r.Old, r.Value, o)
	case "sets": // N of them, one at a time
		for i := range r.N {
			if err = p.db.Set(ctx, fmt.Appendf(nil, "%s%06d", r.Key, i), r.Value, o); err != nil {
				break
			}
			a.N++
		}
	case "fill": // a value of N bytes
		err = p.db.Set(ctx, r.Key, pattern(r.N), o)
	case "read": // N goroutines, the same value again and again, until "stop"
		err = p.read(ctx, r)
	case "count": // N goroutines, until "stop"
		a.Counts, err = p.count(ctx, r)
	case "puts": // N a second in durable batches, until "stop"
		err = p.puts(ctx, r.N)
	case "stop":
		p.stopped.Do(func() { close(p.stop) })
	case "acks":
		a.N = int(p.acks.Load())
	case "journal":
		err = p.journal(ctx, r)
	case "pump":
		err = p.pump(ctx, r)
	case "work":
		err = p.work(ctx, r)
	case "tail":
		a.N, err = p.tail(ctx, r)
	case "watch":
		err = p.watch(ctx, r)
	case "churn":
		err = p.churn(ctx, r)
	case "status":
		a.Status, err = p.db.Status(ctx)
	case "resign":
		err = p.db.Resign(ctx)
	case "snapshot": // makes one, which stays open
		if p.snap, err = p.db.NewSnapshot(ctx); err == nil {
			a.N, a.Value, err = p.look(ctx)
		}
	case "look": // at the last of them
		a.N, a.Value, err = p.look(ctx)
	case "close":
		err = p.db.Close()
	case "iterate": // opens N iterators, stands on their first keys, and keeps them
		for range r.N {
			var it *party.Iterator
			if it, err = p.db.NewIter(context.Background(), nil); err != nil {
				break
			}
			if it.First() {
				a.N++
			}
		}
	case "spawn": // a process that outlives this one; its pid is N
		cmd := exec.Command("sleep", "600")
		if err = cmd.Start(); err == nil {
			a.N = cmd.Process.Pid
		}
	default:
		err = fmt.Errorf("no such op: %s", r.Op)
	}
	a.fail(err)
	p.send(a)
}

// look returns the number of keys in the snapshot and a digest of all it has.
func (p *child) look(ctx context.Context) (n int, digest []byte, err error) {
	it, err := p.snap.NewIter(ctx, nil)
	if err != nil {
		return 0, nil, err
	}
	h := sha256.New()
	for k, v := range it.All() {
		fmt.Fprintf(h, "%d %s %d %s ", len(k), k, len(v), v)
		n++
	}
	return n, h.Sum(nil), it.Close()
}

// read gets a value that fill has set until it is told to stop, and counts that
// among the acknowledged.
func (p *child) read(ctx context.Context, r request) error {
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for range r.N {
		all.Go(func() {
			for {
				select {
				case <-p.stop:
					return
				default:
				}
				v, err := p.db.Get(ctx, r.Key)
				if err == nil && !bytes.Equal(v, pattern(len(v))) {
					err = errors.New("the value is damaged")
				}
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				p.acks.Add(1)
			}
		})
	}
	all.Wait()
	return failed
}

// counters is how many counters of each kind there are: few, so that
// compare-and-swaps meet.
const counters = 3

// count increments counters at random until it is told to stop, and returns how
// many increments of each were acknowledged: by compare-and-swap, then by Merge,
// then the number of keys set under r.Key.
func (p *child) count(ctx context.Context, r request) ([]int, error) {
	return countInto(ctx, p.db, r.N, r.Seed, string(r.Key), p.stop, &p.acks)
}

func countInto(ctx context.Context, db *party.DB, goroutines int, seed uint64, name string, stop <-chan struct{}, acks *atomic.Int64) ([]int, error) {
	counts := make([]int, 2*counters+goroutines)
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			mine := make([]int, len(counts))
			err := counting(ctx, db, rng, fmt.Sprintf("%s-%d", name, g), 2*counters+g, mine, stop, acks)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for i, n := range mine {
				counts[i] += n
			}
		})
	}
	all.Wait()
	return counts, failed
}

func counting(ctx context.Context, db *party.DB, rng *rand.Rand, name string, slot int, counts []int, stop <-chan struct{}, acks *atomic.Int64) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		o := pebble.Sync
		if rng.IntN(4) == 0 {
			o = pebble.NoSync
		}
		i := rng.IntN(counters)
		switch rng.IntN(3) {
		case 0:
			swapped, err := increment(ctx, db, fmt.Appendf(nil, "cas%d", i), o)
			if err != nil {
				return err
			}
			if swapped {
				counts[i]++
			}
		case 1:
			if err := db.Merge(ctx, fmt.Appendf(nil, "merge%d", i), []byte("1"), o); err != nil {
				return fmt.Errorf("merge: %w", err)
			}
			counts[counters+i]++
		case 2:
			if err := db.Set(ctx, fmt.Appendf(nil, "set-%s-%06d", name, counts[slot]), []byte(name), o); err != nil {
				return fmt.Errorf("set: %w", err)
			}
			counts[slot]++
		}
		acks.Add(1)
	}
}

// increment tries once to add one to a counter.
func increment(ctx context.Context, db *party.DB, key []byte, o *pebble.WriteOptions) (bool, error) {
	old, err := db.Get(ctx, key)
	n := 0
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		old = nil
	case err != nil:
		return false, fmt.Errorf("get: %w", err)
	default:
		if n, err = strconv.Atoi(string(old)); err != nil {
			return false, err
		}
	}
	swapped, err := db.CompareAndSwap(ctx, key, old, strconv.AppendInt(nil, int64(n+1), 10), o)
	if err != nil {
		return false, fmt.Errorf("compare and swap: %w", err)
	}
	return swapped, nil
}

// journal sets numbered keys under r.Key and reports each number once it is
// acknowledged, in order, until it is told to stop or killed.
func (p *child) journal(ctx context.Context, r request) error {
	for i := 0; ; i++ {
		select {
		case <-p.stop:
			return nil
		default:
		}
		if err := p.db.Set(ctx, fmt.Appendf(nil, "%s-%06d", r.Key, i), r.Key, pebble.Sync); err != nil {
			if errors.Is(err, party.ErrClosed) {
				return nil
			}
			return err
		}
		p.send(answer{ID: -1, N: i + 1})
	}
}

// process is a child as the parent sees it.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	pid  int
	done chan struct{} // closed when it has ended and its output is read

	journaled atomic.Int64 // keys that journal has reported

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	ended   bool
	killed  bool
}

// start starts a child and returns when it has opened its handle.
func start(t testing.TB, c config) *process {
	t.Helper()
	p := launch(t, c)
	if a := receive(t, "the child to open", p.opened()); a.Err != "" {
		t.Fatalf("child: open: %s", a.Err)
	}
	return p
}

// launch starts a child and returns at once.
func launch(t testing.TB, c config) *process {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	p := &process{t: t, cmd: exec.Command(os.Args[0]), done: make(chan struct{}), next: 1, waiting: map[int]chan answer{0: make(chan answer, 1)}}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	p.pid = p.cmd.Process.Pid
	go p.read(out)
	t.Cleanup(p.end)
	return p
}

func (p *process) opened() <-chan answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[0]
}

func (p *process) read(out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue // half a line of a process that was killed, or a message of the race detector
		}
		if a.ID < 0 {
			p.journaled.Store(int64(a.N))
			continue
		}
		p.mu.Lock()
		c := p.waiting[a.ID]
		p.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for id, c := range p.waiting {
		select {
		case c <- answer{ID: id, Err: "the child has ended"}:
		default:
		}
	}
}

// send sends a request; its answer comes over the channel.
func (p *process) send(r request) <-chan answer {
	p.t.Helper()
	c := make(chan answer, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	r.ID = p.next
	p.next++
	if p.ended {
		c <- answer{ID: r.ID, Err: "the child has ended"}
		return c
	}
	p.waiting[r.ID] = c
	b, err := json.Marshal(r)
	must(p.t, err)
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		c <- answer{ID: r.ID, Err: err.Error()}
	}
	return c
}

// call sends a request and waits for its answer, whatever it is.
func (p *process) call(r request) answer {
	p.t.Helper()
	return receive(p.t, "the answer of a child to "+r.Op, p.send(r))
}

// do is call for what must not fail.
func (p *process) do(r request) answer {
	p.t.Helper()
	a := p.call(r)
	if a.Err != "" {
		p.t.Fatalf("child %d: %s: %s", p.pid, r.Op, a.Err)
	}
	return a
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill() {
	p.t.Helper()
	p.killed = true
	must(p.t, p.cmd.Process.Kill())
	p.wait()
}

func (p *process) wait() {
	select {
	case <-p.done:
	case <-time.After(patience):
		p.killed = true
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("child %d did not end within %s of the end of its input", p.pid, patience)
	}
	if err := p.cmd.Wait(); err != nil && !p.killed {
		p.t.Errorf("child %d: %v", p.pid, err)
	}
}

// end has the process close its handle and waits for it.
func (p *process) end() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.in.Close()
	p.wait()
}
