package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

type chaosCommand struct {
	Duration  time.Duration `default:"15s" help:"How long there are work and faults."`
	Seed      uint64        `help:"Seed of the plan; 0 draws one, which is printed."`
	Processes int           `default:"4" help:"Processes on the one directory."`
	Every     time.Duration `default:"500ms" help:"Mean time between two faults."`
	Report    string        `help:"Write a page that shows what happened to this file, and the same as JSON beside it." placeholder:"FILE" type:"path"`
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

func (c *chaosCommand) Run(s *session) error {
	plan := chaos.Plan{Seed: c.Seed, Duration: c.Duration, Processes: c.Processes, Every: c.Every}
	if !c.Quiet {
		plan.Progress = func(line string) { fmt.Println(line) }
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
	if !report.OK() {
		return fmt.Errorf("%w; seed %d, kept for a look: %s", errViolated, report.Seed, report.Dir)
	}
	return nil
}
