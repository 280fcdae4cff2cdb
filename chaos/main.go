package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// workerEnv says to Main what to do, as JSON of orders.
const workerEnv = "PEBBLEPARTY_CHAOS_WORKER"

// orders are what a process is started with.
type orders struct {
	DB      string        `json:"db"`
	Records string        `json:"records"`
	Place   int           `json:"place"`
	N       int           `json:"n"` // how many were in this place before
	Lanes   int           `json:"lanes"`
	Pause   time.Duration `json:"pause"`
	Timeout time.Duration `json:"timeout"`
	Seed    uint64        `json:"seed"`

	LocalReads bool   `json:"localReads"`        // besides what the job's options say
	Platter    string `json:"platter,omitempty"` // folder; "": none is kept
	Trap       *trap  `json:"trap,omitempty"`

	Clock time.Duration `json:"clock,omitempty"` // see clock
}

// command is what a process is told while it works, a line of JSON on its
// standard input. The end of the input has it close and end.
type command struct {
	Do    string   `json:"do"` // see worker.do and worker.obey
	Times int      `json:"times,omitempty"`
	Trap  *trap    `json:"trap,omitempty"` // nil: none
	Ails  *ailment `json:"ails,omitempty"` // nil: the disk is healthy

	Clock time.Duration `json:"clock,omitempty"` // see clock
}

// said is what a process says, a line of JSON on its standard output: a change of
// role, that a sync was made to fail, or that it is in the trap.
type said struct {
	Caught bool   `json:"caught,omitempty"`
	Failed string `json:"failed,omitempty"` // of which files, see ailment.Syncs

	At     int64  `json:"at"`
	Role   string `json:"role"`
	Term   uint64 `json:"term"`
	Leader int    `json:"leader"`
	Cause  string `json:"cause,omitempty"`
}

// Main does the work of a process that Run started, and ends it. In any other
// process it returns at once. Call it first in main or TestMain, with the Job of
// the plan; nil is Standard.
func Main(j *Job) {
	text := os.Getenv(workerEnv)
	if text == "" {
		return
	}
	if j == nil {
		j = Standard()
	}
	// A terminal sends it to all; who runs the chaos decides.
	signal.Ignore(os.Interrupt)
	if err := work(text, j); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// worker is the process that Main runs.
type worker struct {
	orders
	job     *Job
	disk    *disk
	clock   clock
	db      *party.DB
	out     *recorder
	closing atomic.Bool
	// fenced: a term ended by an error. Then Pebble may have met one that it does not
	// survive, and is given up with the goroutines that are stuck in it.
	fenced atomic.Bool

	mu  sync.Mutex
	say *json.Encoder // under mu
	led bool          // only roleChanged uses it: the last role
}

func work(text string, j *Job) error {
	w := &worker{job: j, say: json.NewEncoder(os.Stdout)}
	if err := json.Unmarshal([]byte(text), &w.orders); err != nil {
		return fmt.Errorf("%s: %w", workerEnv, err)
	}
	if err := j.validate(); err != nil {
		return err
	}
	last, err := lastNotes(w.Records, w.Place, w.N)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(w.Records, recordName(w.Place, w.N)), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w.out = &recorder{file: file}
	w.useDisk()
	w.clock.set(w.Clock)
	o := w.options()
	o.Events.RoleChanged = w.roleChanged
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)) // a file beside the record
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.Timeout)
	defer cancel()
	before := takeFootprint()
	w.db, err = party.Open(ctx, w.DB, o)
	if err != nil {
		return errors.Join(fmt.Errorf("open: %w", err), w.out.close())
	}
	folders, err := w.run(last)
	cancel() // of Open: what waits for the end of a context ends too
	w.look(before, folders)
	return errors.Join(err, w.out.close())
}

// look records what the process has left when its handles are closed.
func (w *worker) look(before footprint, folders []string) {
	if w.fenced.Load() {
		w.out.write(event{Kind: eventFenced, At: now()})
		return
	}
	for _, text := range leaks(before, folders, w.Timeout/4) { // of the time that it has to end
		w.out.write(event{Kind: eventLeak, At: now(), Text: text})
	}
	w.out.write(event{Kind: eventLooked, At: now()})
}

// useDisk puts a disk below the database, which can be told to fail.
func (w *worker) useDisk() {
	var p *platter
	if w.Platter != "" {
		p = newPlatter(w.Platter, w.DB)
	}
	w.disk = newDisk(below(w.job), w.DB, p, w.Seed^uint64(w.Place)<<24^uint64(w.N))
	w.disk.failed = func(what string) { w.tell(said{At: now(), Failed: what}) }
	w.disk.caught = func() { w.tell(said{At: now(), Caught: true}) }
	w.disk.set(w.Trap)
}

// below is the file system that a job has its database on.
func below(j *Job) vfs.FS {
	if o := j.Options; o != nil && o.Pebble != nil && o.Pebble.FS != nil {
		return o.Pebble.FS
	}
	return vfs.Default
}

// options are those of the job, on the disk and with the clock of this process.
func (w *worker) options() *party.Options {
	o := w.job.options()
	o.Pebble = o.Pebble.Clone()
	o.Pebble.FS = w.disk
	o.Now = w.clock.over(o.Now)
	o.LocalReads = o.LocalReads || w.LocalReads
	return o
}

func (w *worker) roleChanged(c party.RoleChange) {
	s := said{At: now(), Role: c.Role.String(), Term: c.Term, Leader: c.LeaderPID}
	if c.Cause != nil {
		s.Cause = c.Cause.Error()
	}
	if w.led && c.Cause != nil {
		w.fenced.Store(true)
	}
	w.led = c.Role == party.Leading
	w.tell(s)
}

func (w *worker) tell(s said) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.say.Encode(s) // who listened is gone: the end of standard input says so
}

// run works until standard input ends, and closes. Calls are under way as the
// handle closes: that they end too is part of what is checked. Before it does,
// subscriptions deliver what they owe. It returns the
// folders that go with the handle and must be gone with it.
func (w *worker) run(last map[string]string) (folders []string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var lanes, watch sync.WaitGroup
	var all []*Lane
	for i, workload := range w.job.Workloads {
		due := new(atomic.Uint64)
		for index := range w.Lanes {
			l := &Lane{
				DB: w.db, workload: workload.Name(), out: w.out, timeout: w.Timeout,
				ID:      fmt.Sprintf("%s-%d-%d-%d", workload.Name(), w.Place, w.N, index),
				Process: w.Place, Index: index, Lanes: w.Lanes, last: last[noteKey(workload.Name(), index)],
				Rand: rand.New(rand.NewPCG(w.Seed, uint64(w.Place)<<48|uint64(w.N)<<24|uint64(i)<<12|uint64(index))),
				pace: newPace(due),
			}
			all = append(all, l)
			lanes.Go(func() { w.lane(ctx, workload, l) })
		}
	}
	stop := make(chan struct{})
	watch.Go(func() { w.attend(all, stop) })
	w.obey(ctx, &lanes)
	for _, l := range all {
		l.pace.arrive()
	}
	close(stop)
	watch.Wait()
	w.closing.Store(true)
	folders = takeFootprint().holdings(w.DB)
	err = w.db.Close()
	cancel()
	lanes.Wait()
	if err != nil {
		return folders, fmt.Errorf("close: %w", err)
	}
	return folders, nil
}

// lane works until the handle closes.
func (w *worker) lane(ctx context.Context, workload Workload, l *Lane) {
	defer l.pace.leave()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		if err := workload.Work(ctx, l); err != nil {
			if w.closing.Load() && (errors.Is(err, party.ErrClosed) || errors.Is(err, context.Canceled)) {
				return
			}
			if !excused(err) {
				w.out.trouble(l, err)
				return
			}
		}
		wait := time.Duration(0)
		if w.Pause > 0 {
			wait = time.Duration(l.Rand.Int64N(2 * int64(w.Pause)))
		}
		pause.Reset(wait)
	}
}

// obey does what it is told until standard input ends, which it does too when
// the process that runs the chaos dies.
func (w *worker) obey(ctx context.Context, jobs *sync.WaitGroup) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			w.out.trouble(&Lane{workload: "orders"}, err)
			return
		}
		switch c.Do { // what has to be in order
		case "state":
			// The handle closes only when that is done. A disk that has room again may
			// not have been tried since.
			err := w.reportState(ctx)
			for end := time.Now().Add(w.Timeout); err != nil && excused(err) && time.Now().Before(end); {
				<-time.After(50 * time.Millisecond)
				err = w.reportState(ctx)
			}
			if err != nil {
				w.out.trouble(&Lane{workload: stateWork}, err)
			}
			continue
		case "ail":
			// A pebble.Open that fails leaves files open and goroutines behind.
			w.fenced.Store(true)
			w.disk.ail(c.Ails)
			continue
		case "trap":
			w.disk.set(c.Trap)
			continue
		case "starve", "feed":
			w.fenced.Store(true) // as above
			if err := w.ration(c); err != nil {
				w.out.trouble(&Lane{workload: c.Do}, err)
			}
			continue
		case "clock":
			w.clock.set(c.Clock)
			continue
		}
		jobs.Go(func() {
			if err := w.do(ctx, c); err != nil && !w.closing.Load() && !excused(err) {
				w.out.trouble(&Lane{workload: c.Do}, err)
			}
		})
	}
}

func (w *worker) do(ctx context.Context, c command) error {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	switch c.Do {
	case "resign":
		return w.db.Resign(ctx)
	case "snapshot":
		return w.snapshot(ctx)
	}
	for range c.Times {
		db, err := party.Open(ctx, w.DB, w.options())
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := db.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	return nil
}

// ration changes how many files this process may have open.
func (w *worker) ration(c command) error {
	if c.Do == "feed" {
		return feed()
	}
	return starve(c.Times)
}

// snapshot takes a snapshot with a handle of its own, which shares the copy of the
// state with no other: so the leader makes a checkpoint.
func (w *worker) snapshot(ctx context.Context) (err error) {
	db, err := party.Open(ctx, w.DB, w.options())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s, err := db.NewSnapshot(ctx)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return s.Close()
}
