package chaos_test

import (
	"flag"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// seed runs another plan than the one that is always run:
//
//	go test ./chaos -run Promises -seed 7
var seed = flag.Uint64("seed", 1, "seed of the plan")

func TestRun_PromisesHold(t *testing.T) {
	p := chaos.Plan{Seed: *seed, Duration: 12 * time.Second, Progress: func(line string) { t.Log(line) }}
	if testing.Short() {
		p.Duration = 3 * time.Second
	}
	report, err := chaos.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Summary())
	if !report.OK() {
		t.Errorf("seed %d: promises were broken; kept in %s", report.Seed, report.Dir)
	}
	if report.Writes == 0 || len(report.Faults) == 0 {
		t.Errorf("%d writes, %d faults: nothing was proven", report.Writes, len(report.Faults))
	}
}
