package chaos

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// ail tells a process what ails its disk from now on; nil: nothing. A process
// that has ended meanwhile does not hear it.
func (p *process) ail(a *ailment) { _ = p.do(command{Do: "ail", Ails: a}) }

// fillDisk has no process find room for a while.
func (c *conductor) fillDisk(ctx context.Context, f Fault) error {
	c.halted = true // one that begins cannot
	defer func() { c.halted = false }()
	for _, p := range c.crew {
		p.ail(&ailment{Full: true})
	}
	c.await(ctx, f.For, nil)
	for _, p := range c.crew {
		p.ail(nil)
	}
	return nil
}

// failWrites has writes of one process fail in the middle for a while.
func (c *conductor) failWrites(ctx context.Context, f Fault, p *process) error {
	p.ail(&ailment{Short: true})
	c.await(ctx, f.For, nil)
	p.ail(nil)
	return nil
}

// failSyncs has syncs of the process that leads fail. After one of the log, that
// process may not lead on: the kernel has forgotten what it did not write.
func (c *conductor) failSyncs(ctx context.Context, f Fault, p *process, d *Done) error {
	a := &ailment{Syncs: syncsOfLog, Once: f.Pick < 0.5, For: f.For + 10*time.Millisecond}
	if int(f.Pick*100)%2 == 0 {
		a.Syncs = syncsOfAll
	}
	term, before := p.term, p.failedSyncs[syncsOfLog]
	p.ail(a)
	over := func() bool { return c.crew[p.place] != p || p.state != Leading || p.term != term }
	c.await(ctx, a.For, func() bool { return over() })
	p.ail(nil)
	if p.failedSyncs[syncsOfLog] == before {
		d.Note = "no sync of the log came"
		return nil
	}
	if !c.await(ctx, settle, over) && context.Cause(ctx) == nil && c.failed == nil {
		c.violate("process %d (pid %d) leads on in term %d, %s after a sync of its log failed", p.place, p.pid, term, settle)
	}
	return nil
}

// noteCommitWord remembers the commit word now and then: nobody syncs it, so a
// power cut may bring back an older one.
func (c *conductor) noteCommitWord(f Fault) {
	if c.platter == nil || f.Pick < 0.5 {
		return
	}
	if b, err := os.ReadFile(filepath.Join(c.db, "party", "commit")); err == nil {
		c.older = b
	}
}

// cutPower does to the files what a power cut does; all processes are dead.
func (c *conductor) cutPower(f Fault) (string, error) {
	rng := rand.New(rand.NewPCG(c.plan.Seed, math.Float64bits(f.Pick)))
	note, err := c.platter.cut(rng)
	if err == nil {
		err = tearUnsynced(filepath.Join(c.db, "party"), c.older, rng)
	}
	c.cuts = append(c.cuts, c.now())
	return note, err
}
