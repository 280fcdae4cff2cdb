//go:build !unix

package chaos

import (
	"errors"
	"os"
)

// canStop: processes can be stopped and go on.
const canStop = false

func stopProcess(*os.Process) error     { return errors.ErrUnsupported }
func continueProcess(*os.Process) error { return errors.ErrUnsupported }

// dumpProcess has a Go program print its goroutines and end; here it only ends.
func dumpProcess(p *os.Process) error { return p.Kill() }
