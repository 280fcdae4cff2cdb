//go:build unix

package chaos

import (
	"os"
	"syscall"
)

// canStop: processes can be stopped and go on.
const canStop = true

func stopProcess(p *os.Process) error     { return p.Signal(syscall.SIGSTOP) }
func continueProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// dumpProcess has a Go program print its goroutines and end.
func dumpProcess(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }
