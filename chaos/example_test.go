package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// A program's main calls Main first, since the processes are the program again,
// and Run when it is asked to.
func ExampleRun() {
	chaos.Main(nil)

	report, err := chaos.Run(context.Background(), chaos.Plan{
		Seed:     42,
		Duration: 2 * time.Second,
		Faults:   []chaos.FaultKind{chaos.KillLeader, chaos.Resign},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("all promises held:", report.OK())
	// report.WriteFiles("chaos.html") has it on a page.

	// Output:
	// all promises held: true
}

// A schedule that failed is run with fewer and fewer faults.
func ExampleShrink() {
	chaos.Main(nil)

	plan := chaos.Plan{Seed: 42, Duration: 2 * time.Second, Faults: []chaos.FaultKind{chaos.KillLeader}}
	small, err := chaos.Shrink(context.Background(), plan, 20)
	if errors.Is(err, chaos.ErrNotShrunk) {
		fmt.Println("it does not fail")
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("it takes", small.Plan.Script)

	// Output:
	// it does not fail
}
