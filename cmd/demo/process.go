package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a worker as the main job sees it. Its fields belong to the job's
// goroutine.
type process struct {
	pid int
	// cmd and stdin are held as long as the worker is to live: a pipe that
	// nothing refers to is closed by the garbage collector, and the worker takes
	// the end of its input for the end of its work.
	cmd   *exec.Cmd
	stdin io.WriteCloser
	tasks *json.Encoder

	given  map[int]bool // ids of tasks that it has not acknowledged
	role   report       // the last change of role; Role is empty before the first
	killed bool         // by the job; its end is no surprise

	// acks are the times of its acknowledgements since the last kill of a
	// leader, as long as they are needed to find the first after it.
	acks []time.Time
}

// said is something that came from a worker: a report, or its end.
type said struct {
	by     *process
	report report
	ended  bool
	err    error // how it ended: nil for exit code 0
}

// startProcess starts a worker. What it says goes to out, last its end; the
// caller reads out until then.
func startProcess(dir, root string, timeout time.Duration, out chan<- said) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "worker", "--timeout", timeout.String(), "--", dir, root)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, cmd: cmd, stdin: stdin, tasks: json.NewEncoder(stdin), given: map[int]bool{}}
	go func() {
		in := json.NewDecoder(stdout)
		for {
			var r report
			if err := in.Decode(&r); err != nil {
				break // its end, in the middle of a line if it was killed
			}
			out <- said{by: p, report: r}
		}
		// Whatever else it may write must not keep it from ending.
		_, _ = io.Copy(io.Discard, stdout)
		out <- said{by: p, ended: true, err: cmd.Wait()}
	}()
	return p, nil
}

// give sends a task. A worker that is gone does not take it; its end is reported
// and everything that it has not acknowledged is given to others.
func (p *process) give(t task) {
	p.given[t.ID] = true
	_ = p.tasks.Encode(t)
}

// dismiss tells the worker that nothing else comes: it closes its handle and ends.
func (p *process) dismiss() { _ = p.stdin.Close() }

func (p *process) kill() error {
	p.killed = true
	return p.cmd.Process.Kill()
}

// joined tells whether the worker is alive and has a leader, or is it.
func (p *process) joined() bool {
	return !p.killed && (p.role.Role == leading || p.role.Role == following)
}

// sigkilled tells whether a process ended by SIGKILL, given what Wait returned.
func sigkilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
