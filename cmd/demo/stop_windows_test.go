package main_test

import (
	"os/exec"
	"testing"
)

// Windows has no signal that stops a process; tests of that are skipped before they
// come here.
const noStop = "Windows has no signal that stops a process: run this on Unix"

func stop(t *testing.T, _ *exec.Cmd)   { t.Skip(noStop) }
func resume(t *testing.T, _ *exec.Cmd) { t.Skip(noStop) }
