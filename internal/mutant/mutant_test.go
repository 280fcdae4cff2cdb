//go:build !mutation

package mutant_test

import (
	"testing"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// That this compiles shows that they are constants, of which nothing is left.
const some = mutant.AckBeforeSync || mutant.ForgetDuplicates || mutant.ResumeForward || mutant.ResumeBackward ||
	mutant.SkipEvent || mutant.DeposedLeader || mutant.LoseLastFrame || mutant.LateWord || mutant.StaleLocalRead || mutant.SplitBatch ||
	mutant.ReplayLosesOps || mutant.LostWakeUp || mutant.NoteTooFar || mutant.TimeGoesBack

func TestMutant_NothingIsBrokenWithoutTheTag(t *testing.T) {
	t.Setenv(mutant.Env, "ack-before-sync")
	if some {
		t.Error("a promise is broken")
	}
}
