package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Shrunk is a smaller plan that still fails.
type Shrunk struct {
	Plan   Plan    // as it was given, with the faults that are left as its Script
	Report *Report // of the last run of Plan that failed
	Runs   int     // it took
}

// ErrNotShrunk: the plan did not fail when it was run again.
var ErrNotShrunk = errors.New("chaos: the plan did not fail again")

// shrinkTries is how often a schedule is run before it is taken for one that does
// not fail: most failures take some luck.
const shrinkTries = 2

// shrinkRest is how long a run goes on behind its last fault.
const shrinkRest = 2 * time.Second

// Shrink looks for the smallest schedule that a failing plan still fails with: it
// runs the plan again and again, with a part of its faults each time, and keeps what
// fails. It stops after that many runs, or when none of the faults that are left can
// be spared. A run takes as long as Run does; it ends soon after its last fault.
//
// p is the plan that failed. If p.Dir is set, the runs have folders in it, of which
// that of Shrunk.Report is left. Progress is called with a line for each run.
//
// The errors are ErrNotShrunk, if p does not fail any more at all, and those of Run.
// When ctx ends after something was found, that is returned, and no error.
func Shrink(ctx context.Context, p Plan, runs int) (*Shrunk, error) {
	p = p.withDefaults()
	s := &shrinking{plan: p, left: runs}
	s.plan.Script = p.Schedule()
	err := s.try(ctx, s.plan.Script)
	if err == nil && s.found == nil {
		err = ErrNotShrunk
	}
	if err == nil {
		err = shrink(s.plan.Script, func(part []Fault) (bool, error) {
			before := s.found
			err := s.try(ctx, part)
			return s.found != before, err
		})
	}
	if s.found == nil {
		return nil, err
	}
	s.found.Runs = s.runs
	if errors.Is(err, errSpent) || ctx.Err() != nil {
		err = nil
	}
	return s.found, err
}

// errSpent: as many runs were done as may be.
var errSpent = errors.New("all runs are spent")

type shrinking struct {
	plan       Plan
	left, runs int
	found      *Shrunk // the smallest so far
}

// try runs the plan with some of its faults, and remembers them if it fails.
func (s *shrinking) try(ctx context.Context, faults []Fault) error {
	p := s.plan
	p.Script, p.Progress = faults, nil
	if n := len(faults); s.found != nil && n > 0 {
		p.Duration = min(p.Duration, faults[n-1].At+shrinkRest)
	}
	for range shrinkTries {
		if s.left == 0 {
			return errSpent
		}
		s.left--
		s.runs++
		if s.plan.Dir != "" {
			p.Dir = filepath.Join(s.plan.Dir, fmt.Sprintf("run-%03d", s.runs))
		}
		report, err := Run(ctx, p)
		if err != nil {
			return err
		}
		if s.plan.Progress != nil {
			word := "fails"
			if report.OK() {
				word = "does not fail"
			}
			s.plan.Progress(fmt.Sprintf("run %d, %d faults: %s", s.runs, len(faults), word))
		}
		if report.OK() {
			if err := remove(p.Dir); err != nil {
				return err
			}
			continue
		}
		if s.found != nil {
			if err := remove(s.found.Report.Dir); err != nil {
				return err
			}
		}
		p.Progress, p.Dir = s.plan.Progress, s.plan.Dir
		s.found = &Shrunk{Plan: p, Report: report}
		return nil
	}
	return nil
}

// remove removes the folder of a run; "" is none.
func remove(dir string) error {
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// shrink looks for a part of the faults that fails, of which no single one can be
// left out: halves first, then what is left without a quarter, an eighth, and so on.
// All of them do fail.
func shrink(faults []Fault, fails func([]Fault) (bool, error)) error {
	for parts := 2; len(faults) > 0; {
		parts = min(parts, len(faults))
		smaller := false
		for i := 0; i < parts; i++ {
			from, to := i*len(faults)/parts, (i+1)*len(faults)/parts
			rest := slices.Concat(faults[:from], faults[to:])
			failed, err := fails(rest)
			if err != nil {
				return err
			}
			if failed {
				faults, smaller = rest, true
				parts = max(parts-1, 1)
				i--
				if len(faults) == 0 {
					return nil
				}
			}
		}
		if !smaller && parts == len(faults) {
			return nil
		}
		if !smaller {
			parts *= 2
		}
	}
	return nil
}
