package chaos

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// Workload is work that is done while faults happen, and the check of what came
// of it. Methods are called from many goroutines and processes at once, so a
// value holds no state of the run: that is in Lane.State.
type Workload interface {
	// Name is short and the same in all processes.
	Name() string

	// Prepare is called once, before there are processes and faults.
	Prepare(ctx context.Context, db *party.DB) error

	// Work does one piece of work in a lane and is called again and again. What it
	// asks of the database goes through Lane.Do. It returns soon after ctx ends.
	// An error that comes while the process is not closing is a violation, but for
	// those that a fault of the disk explains: after one, Work is called again.
	Work(ctx context.Context, l *Lane) error

	// Check is called once, after the last process has ended, and judges. The
	// database of e is open and nobody else writes.
	Check(ctx context.Context, e *Evidence) Verdict
}

// Op says what a call asks for. The strings are the workload's own business: they
// are recorded and come back in Evidence.
type Op struct {
	Name  string
	Key   string
	Input string
	Write bool // its success shows that the database takes writes

	Unsynced bool // a write with pebble.NoSync, which a power cut may take
}

// Lane is one goroutine of one process that does the work of one workload.
type Lane struct {
	DB      *party.DB
	Rand    *rand.Rand
	ID      string // no other lane of the run has it, nor one of a process that was started in place of this one
	Process int    // place of the process, from 0; one that is started in place of another has the same
	Index   int    // of the lane among those of the workload in the process, from 0
	Lanes   int    // how many those are
	State   any    // for the workload; nil in the beginning

	workload string
	out      *recorder
	timeout  time.Duration
	last     string // last note of the processes before, in this place
	pace     *pace
}

// Do runs call with a context that ends after Plan.CallTimeout, and records op
// before it and what it returned after it, so that the record of a process that
// is killed in between has the call as one without an answer. It returns the
// error of call.
func (l *Lane) Do(ctx context.Context, op Op, call func(ctx context.Context) (output string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	n := l.out.begin(l, op)
	output, err := call(ctx)
	l.out.end(n, output, err)
	return err
}

// Note records text, which survives the death of the process, and comes back in
// Evidence and in LastNote.
func (l *Lane) Note(text string) { l.out.note(l, text) }

// Due says that an event with the sequence number seq has committed: a call of this
// process was told so. The subscriptions that this workload has in this process have
// to deliver it, see Delivered.
func (l *Lane) Due(seq uint64) { l.pace.knows(seq) }

// Delivered says that the subscription of this lane has delivered everything up to
// the sequence number seq: that of an event, and before the first, the one before
// that which it was asked to begin with.
//
// From then on silence is a violation: that nothing was delivered for five seconds in
// which something was Due and the process ran. A process that is to close waits, as
// long as that, for what is due.
func (l *Lane) Delivered(seq uint64) { l.pace.reached(seq) }

// LastNote returns what Note was given last, by the lane of this workload and
// Index in the processes that had this place before; "" if there was none. Notes
// of this process do not change it.
func (l *Lane) LastNote() string { return l.last }

// Call is what was recorded of a call. Times are nanoseconds since the work began.
type Call struct {
	Op
	Lane     string // id
	Process  int
	Start    int64
	End      int64 // 0: no answer was recorded before the process died
	Output   string
	Err      string // "" if it succeeded
	Refused  bool   // it failed for a fault of the disk, and the error says that it was not applied
	Workload string

	excused bool // it failed for a fault of the disk
}

// Answered tells whether the call returned.
func (c Call) Answered() bool { return c.End != 0 }

// OK tells whether the call returned without an error.
func (c Call) OK() bool { return c.End != 0 && c.Err == "" }

// Note is what a lane noted.
type Note struct {
	Process, Index int
	Text           string
}

// Evidence is what Check has to judge from.
type Evidence struct {
	DB    *party.DB
	Dir   string // of the database
	Calls []Call // of the workload, in the order of their starts
	Notes []Note // of the workload; those of one place and index in the order they were made
	// Cuts are the times, in the clock of Calls, when the power was cut. No process
	// was there then. What had been written with pebble.NoSync, and no later write
	// with pebble.Sync had returned since, may be lost, from the end of the log.
	Cuts []int64

	// Attach makes a file beside the report that Verdict.Link can name.
	Attach func(name string) (io.WriteCloser, error)
	// Now is the time in the clock of Calls, in nanoseconds.
	Now func() int64
}

// Verdict is what a check found.
type Verdict struct {
	Name       string   `json:"name"`
	Detail     string   `json:"detail"`               // what was found, in a few words; shown if nothing was violated
	Violations []string `json:"violations,omitempty"` // none: all is well
	Undecided  string   `json:"undecided,omitempty"`  // why a part could not be judged
	Link       string   `json:"link,omitempty"`       // name of a file that was attached
}

// maxViolations are listed of one verdict; one that is broken breaks for
// thousands of calls.
const maxViolations = 20

// violation adds one.
func (v *Verdict) violate(text string) {
	switch {
	case len(v.Violations) < maxViolations:
		v.Violations = append(v.Violations, text)
	case len(v.Violations) == maxViolations:
		v.Violations = append(v.Violations, "and more")
	}
}
