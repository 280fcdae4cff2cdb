package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// job is the main job. One goroutine runs it and owns all of it.
type job struct {
	*session
	dir   string
	files folder
	want  partyCommand
	start time.Time

	tasks []task
	queue []int // ids of tasks that nobody has
	acked int   // tasks
	bytes int64 // acknowledged
	again int   // tasks that a killed worker had not acknowledged
	took  time.Duration

	said  chan said
	crew  []*process // those that have not ended
	stall *time.Timer
	past  history
	found *comparison // nil until the database has been compared
	bar   *progressbar.ProgressBar
}

func newJob(s *session, want partyCommand, dir string, files folder, tasks []task) *job {
	j := &job{session: s, want: want, dir: dir, files: files, tasks: tasks, said: make(chan said), start: time.Now()}
	for _, t := range tasks {
		j.queue = append(j.queue, t.ID)
	}
	return j
}

func (j *job) run() error {
	err := j.load()
	if err == nil {
		err = j.compare()
	}
	if err != nil && !errors.Is(err, errInterrupted) {
		// It may be that nobody can close any more, and what there is to see in
		// the directory should stay.
		for _, p := range j.crew {
			_ = p.kill() // it may have ended
		}
	}
	err = errors.Join(err, j.dismiss())
	if errors.Is(err, errInterrupted) {
		return err
	}
	if n := len(j.past.failovers); err == nil && n < j.want.Kills {
		err = fmt.Errorf("only %d of %d kills: everything was loaded before. --kills asks for fewer", n, j.want.Kills)
	}
	return errors.Join(err, printed(j.report))
}

// load has the workers write everything, killing leaders on the way.
func (j *job) load() error {
	j.bar = newBar(j.files.size, "loading")
	defer j.bar.Finish()
	j.stall = time.NewTimer(j.timeout)
	if j.timeout == 0 {
		j.stall.Stop()
	}
	defer j.stall.Stop()
	for range j.want.Workers {
		if err := j.hire(); err != nil {
			return err
		}
	}
	for j.acked < len(j.tasks) {
		select {
		case m := <-j.said:
			if err := j.hear(m); err != nil {
				return err
			}
		case <-j.stall.C:
			return fmt.Errorf("no write was acknowledged for %s", j.timeout)
		case <-j.ctx.Done():
			return errInterrupted
		}
		j.past.settle()
		if err := errors.Join(j.replace(), j.killDue()); err != nil {
			return err
		}
		j.deal()
	}
	j.took = time.Since(j.start)
	return nil
}

func (j *job) hire() error {
	p, err := startProcess(j.dir, j.files.path, j.timeout, j.said)
	if err != nil {
		return err
	}
	j.crew = append(j.crew, p)
	return nil
}

// hear takes in what a worker said.
func (j *job) hear(m said) error {
	p, r := m.by, m.report
	switch {
	case m.ended:
		j.crew = slices.DeleteFunc(j.crew, func(q *process) bool { return q == p })
		j.again += len(p.given)
		for id := range p.given {
			j.queue = append(j.queue, id)
		}
		switch {
		case p.killed:
		case sigkilled(m.err): // somebody wants to see what happens
			j.past.lost(p, time.Now())
			j.tell(time.Now(), "pid %d was killed by somebody else", p.pid)
		default:
			return fmt.Errorf("worker %d ended by itself: %v", p.pid, m.err)
		}
	case r.Error != "":
		return fmt.Errorf("worker %d: %s", p.pid, r.Error)
	case r.Role != "":
		p.role = r
		j.past.role(p, r)
		j.tell(r.At, "pid %d %s, term %d", p.pid, r.Role, r.Term)
	case r.Acked != nil:
		delete(p.given, *r.Acked)
		j.acked++
		j.bytes += j.tasks[*r.Acked].size
		_ = j.bar.Set64(j.bytes)
		j.past.acked(p, r.At)
		if j.timeout > 0 {
			j.stall.Reset(j.timeout)
		}
	}
	return nil
}

// deal keeps every worker that has a leader supplied with tasks. When a kill is
// due and cannot be yet, only those get any whose next acknowledgement it waits
// for: otherwise everything might be loaded before the last kills.
func (j *job) deal() {
	due := j.due()
	for _, p := range j.crew {
		if due && !j.past.awaits(p) {
			continue
		}
		for p.joined() && len(p.given) < workerTasks && len(j.queue) > 0 {
			p.give(j.tasks[j.queue[0]])
			j.queue = j.queue[1:]
		}
	}
}

// replace starts a worker for each that was killed, once the survivors write
// again: starting a process takes both cores for a while, and what is measured
// should be the failover.
func (j *job) replace() error {
	if j.past.open() != nil {
		return nil
	}
	alive := 0
	for _, p := range j.crew {
		if !p.killed {
			alive++
		}
	}
	for ; alive < j.want.Workers && len(j.queue) > 0; alive++ {
		if err := j.hire(); err != nil {
			return err
		}
	}
	return nil
}

// due tells whether the next kill is to come. The kills share the bytes evenly,
// with two shares left for the end: each may be late by what is under way.
func (j *job) due() bool {
	done, kills := int64(len(j.past.failovers)), int64(j.want.Kills)
	return done < kills && j.bytes*(kills+2) >= j.files.size*(done+1)
}

// joined counts the workers that lead or follow.
func (j *job) joined() (n int) {
	for _, p := range j.crew {
		if p.joined() {
			n++
		}
	}
	return n
}

// killDue kills the leader when it is time, the last kill is over and done with,
// and there are as many workers again.
func (j *job) killDue() error {
	if !j.due() || j.past.open() != nil || j.joined() < j.want.Workers {
		return nil
	}
	var leader *process
	var survivors []*process
	for _, p := range j.crew {
		switch {
		case !p.joined():
		case p.role.Role == leading:
			leader = p
		default:
			survivors = append(survivors, p)
		}
	}
	if leader == nil || len(survivors) != j.want.Workers-1 {
		return nil // somebody has not said yet that it no longer leads
	}
	j.past.kill(leader, time.Now(), survivors)
	j.tell(time.Now(), "kill -9 %d, which leads term %d", leader.pid, leader.role.Term)
	return leader.kill()
}

// dismissal is how long the workers may take to close and end.
const dismissal = 10 * time.Second

// dismiss lets the workers close their handles and end.
func (j *job) dismiss() error {
	for _, p := range j.crew {
		p.dismiss()
	}
	var faults []error
	late := time.After(dismissal)
	for len(j.crew) > 0 {
		select {
		case m := <-j.said:
			if m.report.Error != "" {
				faults = append(faults, fmt.Errorf("worker %d: %s", m.by.pid, m.report.Error))
			}
			if !m.ended {
				continue
			}
			j.crew = slices.DeleteFunc(j.crew, func(p *process) bool { return p == m.by })
			if m.err != nil && !m.by.killed {
				faults = append(faults, fmt.Errorf("worker %d ended with %w", m.by.pid, m.err))
			}
		case <-late:
			for _, p := range j.crew {
				faults = append(faults, fmt.Errorf("worker %d did not end for %s", p.pid, dismissal))
				_ = p.kill()
			}
		}
	}
	return errors.Join(faults...)
}

// tell prints what happens, unless there is a bar to look at.
func (j *job) tell(at time.Time, format string, args ...any) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Printf("%8.3f s  %s\n", at.Sub(j.start).Seconds(), fmt.Sprintf(format, args...))
	}
}
