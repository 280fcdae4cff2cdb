package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// State is what a process is doing, as the report shows it.
type State string

// The states.
const (
	Starting  State = "starting" // until it has a role
	Electing  State = "electing"
	Following State = "following"
	Leading   State = "leading"
	Stopped   State = "stopped" // by SIGSTOP
	Dead      State = "dead"
)

// Span is a time that a process spent in one state. Times are nanoseconds since
// the work began; From of those that were there before is negative.
type Span struct {
	Process int    `json:"process"`
	PID     int    `json:"pid,omitempty"`
	State   State  `json:"state"`
	Term    uint64 `json:"term,omitempty"`
	Cause   string `json:"cause,omitempty"`
	From    int64  `json:"from"`
	To      int64  `json:"to"`
}

// process is a running process, as the conductor sees it; its goroutine owns it.
type process struct {
	place, n int
	pid      int
	cmd      *exec.Cmd
	stdin    io.WriteCloser // held open: its end is the order to close
	commands *json.Encoder
	stderr   string // path

	state   State // its role, also while it is stopped
	term    uint64
	stopped bool
	killed  bool // its end by a signal is no surprise
	closing bool // its end with code 0 is none
	spans   []Span

	caught      bool           // in the trap
	failedSyncs map[string]int // that were made to fail, see ailment
}

// news is a change of role of a process, or its end.
type news struct {
	by    *process
	said  said
	ended bool
	at    int64
	err   error // how it ended
}

// start starts the next process of a place. What it says comes out of news,
// last its end.
func (c *conductor) start(place int) error {
	p := &process{place: place, n: c.started[place], state: Starting, failedSyncs: map[string]int{}}
	c.started[place]++
	o := orders{DB: c.db, Records: c.records, Place: place, N: p.n, Lanes: c.plan.Lanes,
		Pause: c.plan.Pause, Timeout: c.plan.CallTimeout, Seed: c.plan.Seed, LocalReads: c.plan.readsLocally(place, p.n)}
	if c.platter != nil {
		o.Platter = c.platter.dir
	}
	o.Trap, o.Clock = c.trap, c.clock()
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if p.cmd, err = c.plan.Command(); err != nil {
		return err
	}
	if p.cmd.Env == nil {
		p.cmd.Env = os.Environ()
	}
	p.cmd.Env = append(p.cmd.Env, workerEnv+"="+string(text))
	p.stderr = filepath.Join(c.records, recordName(place, p.n)+".stderr")
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return err
	}
	defer stderr.Close() // the process has its own
	p.cmd.Stderr = stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.spans = []Span{{Process: place, State: Starting, From: c.now()}}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	p.pid, p.commands = p.cmd.Process.Pid, json.NewEncoder(p.stdin)
	p.spans[0].PID = p.pid
	c.crew[place] = p
	go listen(p, stdout, c.news)
	return nil
}

// listen passes on what a process says, and its end.
func listen(p *process, stdout io.Reader, out chan<- news) {
	in := json.NewDecoder(stdout)
	for {
		var s said
		if err := in.Decode(&s); err != nil {
			break // its end, in the middle of a line if it was killed
		}
		out <- news{by: p, said: s}
	}
	// Whatever else it may print must not keep it from ending.
	_, _ = io.Copy(io.Discard, stdout)
	err := p.cmd.Wait()
	out <- news{by: p, ended: true, at: now(), err: err}
}

// enter begins a span at the time at.
func (p *process) enter(s Span, at int64) {
	last := &p.spans[len(p.spans)-1]
	at = max(at, last.From) // what was said while it was being stopped comes later
	last.To = at
	s.Process, s.PID, s.From = p.place, p.pid, at
	p.spans = append(p.spans, s)
}

// hear takes note of a change of role.
func (p *process) hear(s said, at int64) {
	p.term = s.Term
	switch s.Role {
	case party.Leading.String():
		p.state = Leading
	case party.Following.String():
		p.state = Following
	default:
		p.state = Electing
	}
	if !p.stopped {
		p.enter(Span{State: p.state, Term: s.Term, Cause: s.Cause}, at)
	}
}

func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	p.killed = err == nil // else it has ended by itself, which is news that is still to come
	return err
}

// stop stops the process until resume.
func (p *process) stop(at int64) error {
	p.stopped = true
	p.enter(Span{State: Stopped}, at)
	return stopProcess(p.cmd.Process)
}

func (p *process) resume(at int64) error {
	p.stopped = false
	p.enter(Span{State: p.state}, at)
	return continueProcess(p.cmd.Process)
}

// dismiss tells the process to close and end.
func (p *process) dismiss() {
	p.closing = true
	_ = p.stdin.Close()
}

func (p *process) do(c command) error { return p.commands.Encode(c) }

// complaint says how the process ended, if it was not as it should, with the
// last of what it printed.
func (p *process) complaint(err error) string {
	if err == nil && p.closing || p.killed {
		return ""
	}
	how := "exit code 0"
	if err != nil {
		how = err.Error()
	}
	text, _ := os.ReadFile(p.stderr)
	text = bytes.TrimSpace(text)
	if len(text) > 2000 {
		text = append(text[:1000:1000], append([]byte(" … "), text[len(text)-1000:]...)...)
	}
	return fmt.Sprintf("process %d (pid %d) ended by itself, %s: %s", p.place, p.pid, how, text)
}

// since prints nanoseconds of a run.
func since(ns int64) string { return time.Duration(ns).Round(10 * time.Microsecond).String() }
