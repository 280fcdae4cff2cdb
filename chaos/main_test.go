package chaos_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// jobEnv says which job the processes of a test do.
const jobEnv = "CHAOS_TEST_JOB"

// dirEnv says in which folder the plan is played.
const dirEnv = "CHAOS_TEST_DIR"

func TestMain(m *testing.M) {
	chaos.Main(jobs[os.Getenv(jobEnv)])
	goleak.VerifyTestMain(m)
}
