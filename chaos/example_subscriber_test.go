package chaos_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// Feed has a subscription in the first lane of each process; the others write.
type Feed struct{ Counter }

func (Feed) Name() string { return "feed" }

func (Feed) Work(ctx context.Context, l *chaos.Lane) error {
	if l.Index > 0 {
		return l.Do(ctx, chaos.Op{Name: "add", Key: "n", Write: true}, func(ctx context.Context) (string, error) {
			var b pebble.Batch
			if err := b.Merge([]byte("n"), []byte("1"), nil); err != nil {
				return "", err
			}
			seq, err := l.DB.Apply(ctx, &b, pebble.Sync)
			if err == nil {
				l.Due(seq)
			}
			return "", err
		})
	}
	// What the process before in this place has seen is not wanted again.
	last, _ := strconv.ParseUint(l.LastNote(), 10, 64)
	sub, err := l.DB.Subscribe(ctx, &party.SubscribeOptions{From: last + 1})
	if err != nil {
		return err
	}
	defer sub.Close()
	l.Delivered(last)
	for event, err := range sub.Events(ctx) {
		if err != nil {
			return err
		}
		l.Note(strconv.FormatUint(event.Seq, 10))
		l.Delivered(event.Seq)
	}
	return nil
}

// A workload with a subscription says what it has to deliver and what it has
// delivered: then it is a violation that it hangs.
func ExampleLane_Delivered() {
	job := &chaos.Job{Options: chaos.StandardOptions(), Workloads: []chaos.Workload{Feed{}}}
	chaos.Main(job)
	// chaos.Run goes here, with the job in its plan.
}

func TestExampleSubscriber_Runs(t *testing.T) {
	p := plan(t, "feed")
	p.Lanes, p.Duration, p.Every, p.Faults = 2, 2*time.Second, 200*time.Millisecond, []chaos.FaultKind{chaos.KillLeader, chaos.KillFollower}
	report, got := run(t, p)
	if got != "" || report.Writes == 0 || report.Kills == 0 {
		t.Errorf("violations %q, %d writes, %d kills", got, report.Writes, report.Kills)
	}
}
