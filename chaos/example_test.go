package chaos_test

import (
	"context"
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
