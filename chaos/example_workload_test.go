package chaos_test

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// Counter adds one to a key, again and again.
type Counter struct{}

func (Counter) Name() string                             { return "counter" }
func (Counter) Prepare(context.Context, *party.DB) error { return nil }

// Work is called again and again, in each lane of each process.
func (Counter) Work(ctx context.Context, l *chaos.Lane) error {
	// Do records the call before it begins and when it returns: a process that is
	// killed in between leaves a call without an answer.
	return l.Do(ctx, chaos.Op{Name: "add", Key: "n", Write: true}, func(ctx context.Context) (string, error) {
		return "", l.DB.Merge(ctx, []byte("n"), []byte("1"), pebble.Sync)
	})
}

// Check judges, when all processes are gone. What was acknowledged must have
// taken effect once; what was asked and has no answer may have.
func (Counter) Check(ctx context.Context, e *chaos.Evidence) chaos.Verdict {
	acknowledged, asked := 0, len(e.Calls)
	for _, c := range e.Calls {
		if c.OK() {
			acknowledged++
		}
	}
	value, err := e.DB.Get(ctx, []byte("n"))
	if err != nil {
		return chaos.Verdict{Violations: []string{err.Error()}}
	}
	n, err := strconv.Atoi(string(value))
	if err != nil || n < acknowledged || n > asked {
		return chaos.Verdict{Violations: []string{fmt.Sprintf("the counter is %s after %d of %d additions", value, acknowledged, asked)}}
	}
	return chaos.Verdict{Detail: fmt.Sprintf("%d additions were acknowledged, the counter is %d", acknowledged, n)}
}

// A workload of one's own: an addition that is done twice can be seen. The
// options have the merger that adds.
func ExampleWorkload() {
	job := &chaos.Job{Options: chaos.StandardOptions(), Workloads: []chaos.Workload{Counter{}}}
	chaos.Main(job) // a process that Run started goes no further
	report, err := chaos.Run(context.Background(), chaos.Plan{Job: job, Duration: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(report.Summary())
	if err := report.WriteFiles("chaos.html"); err != nil {
		log.Fatal(err)
	}
}

func TestExampleWorkload_Runs(t *testing.T) {
	p := plan(t, "counter")
	p.Duration, p.Every, p.Faults = 2*time.Second, 200*time.Millisecond, []chaos.FaultKind{chaos.KillLeader, chaos.KillFollower}
	report, got := run(t, p)
	if got != "" || report.Writes == 0 || report.Kills == 0 {
		t.Errorf("violations %q, %d writes, %d kills", got, report.Writes, report.Kills)
	}
}
