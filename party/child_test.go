package party_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
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
	Mount     string // set: where this process, in a container, sees Dir
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
	if err := c.enter(); err != nil {
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
