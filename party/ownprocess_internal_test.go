package party

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// brokenEnv is set in the process that InOwnProcess starts.
const brokenEnv = "PEBBLEPARTY_TEST_BREAKS"

// InOwnProcess runs the test that calls it, the first thing that it does, in a
// process of its own, and tells whether this is that process. It is for tests that
// break a Pebble on purpose: that is given up for good with its goroutines, and what
// they hold, and no other test shall have them around or be excused for leaving such.
func InOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(brokenEnv) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m", fmt.Sprint("-test.short=", testing.Short()))
	cmd.Env = append(os.Environ(), brokenEnv+"=1")
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")):
		t.Skipf("%s", out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")):
		t.Errorf("it did not run:\n%s", out)
	}
	return false
}

// Leaked are the goroutines that a test may leave behind: none, or in a process of
// InOwnProcess those of a Pebble that is given up.
func Leaked() (excused []goleak.Option) {
	if os.Getenv(brokenEnv) == "" {
		return nil
	}
	for _, f := range []string{
		"github.com/pebbleparty/pebbleparty/apply.(*fatalLogger).Fatalf",
		"github.com/pebbleparty/pebbleparty/apply.(*guardFS).park",
		"github.com/pebbleparty/pebbleparty/apply.(*compactions).grant",
		"github.com/pebbleparty/pebbleparty/apply.(*Machine).commit",
		"github.com/pebbleparty/pebbleparty/party.(*leader).join.func1",
		"github.com/cockroachdb/pebble/v2.(*DB).flush",
		"github.com/pebbleparty/pebbleparty/apply.(*store).openPebble.func1",
		"github.com/pebbleparty/pebbleparty/apply.(*store).close.func1",
		"github.com/pebbleparty/pebbleparty/apply.(*store).call.func1",
		"github.com/cockroachdb/pebble/v2.(*DB).GetWaitingCompaction",
		"github.com/cockroachdb/pebble/v2.(*cleanupManager).mainLoop",
		"github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter",
		"github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop",
		"github.com/cockroachdb/pebble/v2/record.NewLogWriter.func2",
		"github.com/cockroachdb/pebble/v2/internal/genericcache.(*shard[...]).releaseLoop",
	} {
		excused = append(excused, goleak.IgnoreAnyFunction(f))
	}
	return excused
}
