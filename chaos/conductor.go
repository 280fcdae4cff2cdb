package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// conductor runs a plan. One goroutine owns all of it.
type conductor struct {
	plan        Plan
	db, records string // folders
	origin      int64  // of the times in the report, by now
	report      *Report

	crew    map[int]*process // by place; those that have not ended
	ending  []*process       // killed, and their end has not come yet; others may have their places
	started []int            // how many processes each place has had
	due     []restart
	halted  bool            // nothing is started
	trap    *trap           // of those that are started
	platter *platter        // nil: no power is cut
	clocks  []time.Duration // what the clock was set to, from that of this machine
	older   []byte          // the commit word as it was at the time of a fault before
	cuts    []int64         // when the power was cut
	ended   int             // processes that ended as they were told to
	news    chan news
	broken  []string // violations that are no workload's business
	failed  error    // ends the run: it is the harness that fails
}

// restart is a place that has no process until then.
type restart struct {
	place int
	at    time.Time
}

// settle is how long the harness waits for what must happen soon: a leader, the
// end of a process that was killed.
const settle = 30 * time.Second

func (c *conductor) now() int64 { return now() - c.origin }

// play starts the processes, does what is planned, and ends them. When it
// returns no process is left.
func (c *conductor) play(ctx context.Context) error {
	defer c.abandon()
	for place := range c.plan.Processes {
		if err := c.start(place); err != nil {
			return err
		}
	}
	if !c.await(ctx, settle, c.joined) {
		c.violate("%s after the start there was no leader with everybody following", settle)
	}
	shift := now() - c.origin // the work begins now
	c.origin += shift
	for _, p := range c.crew {
		for i := range p.spans {
			p.spans[i].From -= shift
			p.spans[i].To -= shift
		}
	}
	for i := range c.report.Spans {
		c.report.Spans[i].From -= shift
		c.report.Spans[i].To -= shift
	}
	free := time.Duration(0) // faults that took long are not followed by a heap of those that had to wait
	for _, f := range c.plan.Schedule() {
		if c.plan.Script == nil && free > c.plan.Duration-c.plan.Every/2 {
			break
		}
		c.await(ctx, max(f.At, free)-time.Duration(c.now()), nil)
		if err := c.stopReason(ctx); err != nil {
			return err
		}
		c.inflict(ctx, f)
		if f.Kind.ofAll() && f.Pick >= hasty {
			// Or there would be nothing that the next one could take.
			c.await(ctx, settle, func() bool { return c.leader() != nil })
		}
		free = time.Duration(c.now()) + c.plan.Every/4
	}
	c.await(ctx, c.plan.Duration-time.Duration(c.now()), nil)
	if err := c.stopReason(ctx); err != nil {
		return err
	}
	c.report.Duration = c.now()
	if err := c.dismissAll(ctx); err != nil {
		return err
	}
	return c.stopReason(ctx)
}

// hasty is how many of the faults that kill all are followed by the next one even
// if nobody leads yet.
const hasty = 0.25

func (c *conductor) stopReason(ctx context.Context) error {
	if c.failed != nil {
		return c.failed
	}
	return context.Cause(ctx)
}

func (c *conductor) violate(format string, args ...any) {
	c.broken = append(c.broken, fmt.Sprintf(format, args...))
}

// await takes in what the processes say and starts those that are due, until ok
// or for d, or until the run is over. It tells whether ok; nil never is.
func (c *conductor) await(ctx context.Context, d time.Duration, ok func() bool) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		c.startDue()
		if ok != nil && ok() {
			return true
		}
		if c.failed != nil {
			return false
		}
		if at, any := c.nextDue(); any {
			next.Reset(time.Until(at))
		}
		select {
		case n := <-c.news:
			c.take(n)
		case <-next.C:
		case <-end.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (c *conductor) nextDue() (at time.Time, any bool) {
	for _, r := range c.due {
		if c.halted {
			break
		}
		if !c.dying(r.place) && (!any || r.at.Before(at)) {
			at, any = r.at, true
		}
	}
	return at, any
}

// dying tells whether a killed process of the place has not ended yet. It may
// write to its record until then, which the next one reads as it begins.
func (c *conductor) dying(place int) bool {
	return slices.ContainsFunc(c.ending, func(p *process) bool { return p.place == place })
}

func (c *conductor) startDue() {
	if c.halted {
		return
	}
	var later []restart
	for _, r := range c.due {
		if time.Now().Before(r.at) || c.dying(r.place) {
			later = append(later, r)
			continue
		}
		c.failed = errors.Join(c.failed, c.start(r.place))
	}
	c.due = later
}

// take takes in one piece of news. A process that has ended gets a successor
// from whoever ended it.
func (c *conductor) take(n news) {
	p := n.by
	switch {
	case n.said.Failed != "":
		p.failedSyncs[n.said.Failed]++
		return
	case n.said.Caught:
		p.caught = true
		return
	}
	if !n.ended {
		p.hear(n.said, n.said.At-c.origin)
		return
	}
	at := n.at - c.origin
	p.spans[len(p.spans)-1].To = at
	c.report.Spans = append(c.report.Spans, p.spans...)
	if c.crew[p.place] == p {
		delete(c.crew, p.place)
	}
	c.ending = slices.DeleteFunc(c.ending, func(e *process) bool { return e == p })
	if p.killed {
		c.report.Kills++
	} else if p.closing && n.err == nil {
		c.ended++
	}
	if why := p.complaint(n.err); why != "" {
		c.violate("%s", why)
		if p.closing {
			return // whoever told it to close waits for its end, and starts the next
		}
		c.due = append(c.due, restart{place: p.place, at: time.Now()})
	}
}

// joined tells whether everybody is there and has a leader, who is one of them.
func (c *conductor) joined() bool {
	return len(c.crew) == c.plan.Processes && c.leader() != nil &&
		!slices.ContainsFunc(c.living(), func(p *process) bool { return p.state != Leading && p.state != Following })
}

// living returns the processes that nothing has been done to, by place.
func (c *conductor) living() []*process {
	var ps []*process
	for place := range c.plan.Processes {
		if p := c.crew[place]; p != nil && !p.killed && !p.closing && !p.stopped {
			ps = append(ps, p)
		}
	}
	return ps
}

// leader returns the process that leads, nil if none said so. A process that has
// been told of another leader corrects itself.
func (c *conductor) leader() *process {
	for _, p := range c.living() {
		if p.state == Leading {
			return p
		}
	}
	return nil
}

// led tells whether somebody leads, if anybody is left, and nobody is dying who may
// have.
func (c *conductor) led() bool {
	dying := func(p *process) bool { return p.killed }
	return (c.leader() != nil || len(c.living()) == 0) && len(c.ending) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(c.crew)), dying)
}

// dismissAll has all processes report their state and close, at once, but for one that is killed when the
// others are gone, if the plan kills and there is one that follows: so there is a
// replica at the end that nobody who was there has removed. It is stopped until
// then, because it would lead. It must not lead already: one that is stopped just as
// a leader that was killed before has died may have the lock, and then nobody can
// close (seed 97108).
func (c *conductor) dismissAll(ctx context.Context) error {
	c.halted = true
	var last *process
	if canStop && slices.Contains(c.plan.Faults, KillFollower) && c.await(ctx, settle, c.led) {
		followers := slices.DeleteFunc(c.living(), func(p *process) bool { return p.state != Following })
		if len(followers) > 0 {
			// The one that has worked longest: it has a replica, if any has.
			last = slices.MinFunc(followers, func(a, b *process) int { return cmp.Compare(a.spans[0].From, b.spans[0].From) })
			if err := last.stop(c.now()); err != nil {
				return err
			}
		}
	}
	for _, p := range c.crew {
		if p != last {
			_ = p.do(command{Do: "state"}) // if it has ended that is known soon
			p.dismiss()
		}
	}
	closed := func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(c.crew)), func(p *process) bool { return p != last })
	}
	if !c.await(ctx, c.plan.CallTimeout+c.closeLimit(), closed) { // the state may take a call's time
		for _, p := range c.crew {
			if p == last {
				continue
			}
			_ = c.stuck(p) // abandon kills it
		}
		c.await(ctx, c.plan.Patience, closed)
	}
	if last != nil && c.crew[last.place] == last {
		if err := last.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	c.gone(ctx, settle)
	return nil
}

// closeLimit is how long a process may take to close.
func (c *conductor) closeLimit() time.Duration { return c.plan.CallTimeout + c.plan.Patience }

// stuck takes note of a process that does not close, and ends it by a signal that
// has it print its goroutines.
func (c *conductor) stuck(p *process) error {
	c.violate("process %d (pid %d) has not closed within %s; its goroutines are in %s", p.place, p.pid, c.closeLimit(), p.stderr)
	p.killed = true
	return dumpProcess(p.cmd.Process)
}

// gone waits until no process is left.
func (c *conductor) gone(ctx context.Context, d time.Duration) bool {
	return c.await(ctx, d, func() bool { return len(c.crew)+len(c.ending) == 0 })
}

// abandon kills what is left, and waits for it.
func (c *conductor) abandon() {
	for _, p := range c.crew {
		_ = p.kill() // it may have ended
	}
	for len(c.crew)+len(c.ending) > 0 {
		c.take(<-c.news)
	}
}
