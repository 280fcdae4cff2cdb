//go:build mutation

package mutant

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

var names []string // of all mutations

// The mutations; off.go says what each is. They are set once, as the process begins.
var (
	AckBeforeSync    = chosen("ack-before-sync")
	ForgetDuplicates = chosen("forget-duplicates")
	ResumeForward    = chosen("resume-forward")
	ResumeBackward   = chosen("resume-backward")
	SkipEvent        = chosen("skip-event")
	DeposedLeader    = chosen("deposed-leader")
	LoseLastFrame    = chosen("lose-last-frame")
	LateWord         = chosen("late-word")
	StaleLocalRead   = chosen("stale-local-read")
	SplitBatch       = chosen("split-batch")
	ReplayLosesOps   = chosen("replay-loses-ops")
	LostWakeUp       = chosen("lost-wake-up")
	NoteTooFar       = chosen("note-too-far")
	TimeGoesBack     = chosen("time-goes-back")
)

func chosen(name string) bool {
	names = append(names, name)
	return os.Getenv(Env) == name
}

// A test that misspells the name would else test nothing.
func init() {
	if name := os.Getenv(Env); name != "" && !slices.Contains(names, name) {
		fmt.Fprintf(os.Stderr, "mutant: no mutation %q; there are: %s\n", name, strings.Join(names, " "))
		os.Exit(2)
	}
}
