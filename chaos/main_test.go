package chaos_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// jobEnv says which job the processes of a test do.
const jobEnv = "CHAOS_TEST_JOB"

func TestMain(m *testing.M) {
	chaos.Main(jobs[os.Getenv(jobEnv)])
	goleak.VerifyTestMain(m)
}
