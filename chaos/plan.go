package chaos

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// Plan says what Run does. The zero value works in a program that calls Main.
type Plan struct {
	// Seed fixes the schedule of faults and the choices of the workloads. It does
	// not fix how processes and disks interleave. 0 draws one; the Report has it.
	Seed uint64

	// Duration is how long there are work and faults, without start, end and
	// checks. The default is 15 seconds.
	Duration time.Duration

	// Processes is how many have the database open. The default is 4.
	Processes int

	// Lanes is how many goroutines each process gives to each workload. The
	// default is 2, of which the first reads and the other writes. With 1 nobody
	// would write in Bank and Lists: a job that has them is refused.
	Lanes int

	// Pause is how long a lane waits between two pieces of work, on average. The
	// default is 5 milliseconds; negative is no pause.
	Pause time.Duration

	// Every is the mean time between two faults. The default is 500 milliseconds.
	Every time.Duration

	// Faults are the kinds that may happen. The default is AllFaults; an empty
	// slice that is not nil is none.
	Faults []FaultKind

	// Script, if not nil, is the schedule, in place of the one that Seed fixes: of a
	// run that failed, say, less what it fails without, see Shrink. All of it is
	// done, however long it takes; Every and Faults mean nothing then.
	Script []Fault

	// CallTimeout ends the context of every call. None should take that long, so
	// one that does is a violation. The default is 20 seconds.
	CallTimeout time.Duration

	// Patience is how long after the end of its context a call may return, and by
	// how much more than CallTimeout a process may take to close. The time that
	// its process was stopped does not count. The default is 2 seconds.
	Patience time.Duration

	// Dir is a folder for the database (db) and what is recorded. The default is
	// a temporary one, which is removed when nothing was violated.
	Dir string

	// Job is what the processes do, here and where Main is called. The default,
	// for nil, is Standard.
	Job *Job

	// Command returns how a process is started: a program that calls Main. Run
	// adds to its environment and takes its standard streams. The default is
	// this program, without arguments.
	Command func() (*exec.Cmd, error)

	// Progress, if not nil, is called with one line for every fault as it is done.
	// It is called from the goroutine of Run.
	Progress func(line string)
}

// Job is what the processes do. The one that calls Run and those that it starts
// must have the same.
type Job struct {
	// Options are how the database is opened. Events.RoleChanged is taken by chaos
	// and may not be set.
	Options *party.Options
	// LocalReads is the share of the processes, from 0 to 1, that get
	// Options.LocalReads where Options do not have it. Which ones depends on the
	// seed; among processes that live at the same time the share is about that.
	LocalReads float64
	// Workloads work beside each other, each in keys of its own. Their names differ.
	Workloads []Workload
}

// Standard returns the job of Registers, Bank, Lists and Tail, of which half of the
// processes read from replicas of their own.
func Standard() *Job {
	return &Job{
		Options:    StandardOptions(),
		LocalReads: 0.5,
		Workloads:  []Workload{Registers{}, Bank{}, Lists{}, Tail{}},
	}
}

// readsLocally tells whether the nth process of a place gets Options.LocalReads.
// Multiples of the golden ratio lie evenly in [0, 1), however many are taken.
func (p Plan) readsLocally(place, n int) bool {
	at := float64(p.Seed%1024)/1024 + float64(place+n*p.Processes)/math.Phi
	return at-math.Floor(at) < p.Job.LocalReads
}

func (p Plan) withDefaults() Plan {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	for p.Seed == 0 {
		p.Seed = rand.Uint64() >> 32 // short enough to type
	}
	set(&p.Duration, 15*time.Second)
	set(&p.Pause, 5*time.Millisecond)
	set(&p.Every, 500*time.Millisecond)
	set(&p.CallTimeout, 20*time.Second)
	set(&p.Patience, 2*time.Second)
	if p.Processes == 0 {
		p.Processes = 4
	}
	if p.Lanes == 0 {
		p.Lanes = 2
	}
	if p.Faults == nil {
		p.Faults = AllFaults()
	}
	if p.Job == nil {
		p.Job = Standard()
	}
	if p.Command == nil {
		p.Command = func() (*exec.Cmd, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return exec.Command(self), nil
		}
	}
	return p
}

// firstReads is a workload whose first lane only reads.
type firstReads interface{ firstReads() }

func (p Plan) validate() error {
	var errs []error
	if p.Processes < 1 || p.Lanes < 1 {
		errs = append(errs, errors.New("a plan needs processes and lanes"))
	}
	if p.Duration < 0 || p.Every < 0 || p.CallTimeout < 0 || p.Patience < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	for _, k := range p.kinds() {
		if !slices.Contains(AllFaults(), k) {
			errs = append(errs, fmt.Errorf("fault %q cannot be done here", k))
		}
	}
	errs = append(errs, p.Job.validate())
	for _, w := range p.Job.Workloads {
		if _, ok := w.(firstReads); ok && p.Lanes == 1 {
			errs = append(errs, fmt.Errorf("with one lane nobody writes in %s, and nothing is tried", w.Name()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("chaos: plan: %w", err)
	}
	return nil
}

// kinds returns the kinds of faults that may happen.
func (p Plan) kinds() []FaultKind {
	if p.Script == nil {
		return p.Faults
	}
	var kinds []FaultKind
	for _, f := range p.Script {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

func (j *Job) validate() error {
	if j.Options != nil && j.Options.Events.RoleChanged != nil {
		return errors.New("Job.Options.Events.RoleChanged is set")
	}
	if j.LocalReads < 0 || j.LocalReads > 1 {
		return fmt.Errorf("Job.LocalReads is %g, not from 0 to 1", j.LocalReads)
	}
	names := map[string]bool{}
	for _, w := range j.Workloads {
		if w.Name() == "" || w.Name() == stateWork || names[w.Name()] {
			return fmt.Errorf("two workloads have the name %q, or one has none, or that of a check", w.Name())
		}
		names[w.Name()] = true
	}
	return nil
}

// options returns a copy of the options, to which more may be added.
func (j *Job) options() *party.Options {
	var o party.Options
	if j.Options != nil {
		o = *j.Options
	}
	return &o
}
