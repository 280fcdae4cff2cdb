package main_test

import (
	"os/exec"
	"testing"
)

func stop(t *testing.T, _ *exec.Cmd)   { t.Skip("a process cannot be stopped here") }
func resume(t *testing.T, _ *exec.Cmd) { t.Skip("a process cannot be stopped here") }
