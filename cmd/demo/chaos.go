package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

type chaosCommand struct {
	Duration  time.Duration `default:"15s" help:"How long there are work and faults."`
	Seed      uint64        `help:"Seed of the plan; 0 draws one, which is printed."`
	Processes int           `default:"4" help:"Processes on the one directory."`
	Every     time.Duration `default:"500ms" help:"Mean time between two faults."`
	Faults    []string      `help:"Kinds of faults; the default is all that can be done on this system." placeholder:"KIND"`
	Schedule  string        `help:"Do the faults that this file says, as --shrink writes it, instead of those of the seed." placeholder:"FILE" type:"existingfile"`
	Shrink    string        `help:"When promises were broken, look for the smallest schedule that still breaks them, and write it to this file for --schedule." placeholder:"FILE" type:"path"`
	Report    string        `help:"Write a page that shows what happened to this file, and the same as JSON beside it." placeholder:"FILE" type:"path"`
	Strict    bool          `help:"Fail too when a part could not be judged, and so is not proven."`
	Quiet     bool          `help:"Do not print every fault as it is done."`
}

func (c *chaosCommand) Validate() error {
	if c.Duration <= 0 || c.Every <= 0 || c.Processes < 1 {
		return errors.New("--duration, --every and --processes must be positive")
	}
	return nil
}

// errViolated: the report says what.
var errViolated = errors.New("promises were broken")

// errUndecided: nothing was violated.
var errUndecided = errors.New("not all promises could be judged")

func (c *chaosCommand) Run(s *session) error {
	plan := chaos.Plan{Seed: c.Seed, Duration: c.Duration, Processes: c.Processes, Every: c.Every}
	for _, kind := range c.Faults {
		plan.Faults = append(plan.Faults, chaos.FaultKind(kind))
	}
	if !c.Quiet {
		plan.Progress = func(line string) { fmt.Println(line) }
	}
	if c.Schedule != "" {
		text, err := os.ReadFile(c.Schedule)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &plan.Script); err != nil {
			return fmt.Errorf("%s: %w", c.Schedule, err)
		}
	}
	report, err := chaos.Run(s.ctx, plan)
	if errors.Is(err, context.Canceled) {
		return errors.Join(errInterrupted, err)
	}
	if err != nil {
		return err
	}
	fmt.Printf("\n%s", report.Summary())
	if c.Report != "" {
		if err := report.WriteFiles(c.Report); err != nil {
			return err
		}
		fmt.Printf("\nreport: %s\n", c.Report)
	}
	if !report.OK() && c.Shrink != "" {
		plan.Seed = report.Seed
		if err := c.shrink(s, plan); err != nil {
			return err
		}
	}
	if !report.OK() {
		return fmt.Errorf("%w; seed %d, kept for a look: %s", errViolated, report.Seed, report.Dir)
	}
	if c.Strict && report.Outcome() == chaos.Undecided {
		return fmt.Errorf("%w; seed %d", errUndecided, report.Seed)
	}
	return nil
}

// shrinkRuns bounds what --shrink does.
const shrinkRuns = 60

// shrink looks for the smallest schedule that still fails, and writes it.
func (c *chaosCommand) shrink(s *session, plan chaos.Plan) error {
	fmt.Printf("\nlooking for a smaller schedule that fails, in at most %d runs\n", shrinkRuns)
	plan.Progress = func(line string) { fmt.Println(line) }
	small, err := chaos.Shrink(s.ctx, plan, shrinkRuns)
	if errors.Is(err, chaos.ErrNotShrunk) {
		fmt.Println("it did not fail again")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Printf("\n%d faults are enough:\n", len(small.Plan.Script))
	for _, f := range small.Plan.Script {
		fmt.Println(f)
	}
	text, err := json.MarshalIndent(small.Plan.Script, "", " ")
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\nschedule: %s, for --seed %d --schedule\n", small.Report.Summary(), c.Shrink, plan.Seed)
	return os.WriteFile(c.Shrink, append(text, '\n'), 0o666)
}
