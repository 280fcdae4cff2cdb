package chaos

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// checkpointSteps is about how many changes of files a checkpoint takes.
const checkpointSteps = 12

// killCheckpoint has a process take a snapshot, for which the leader makes a
// checkpoint, and kills one of them in the middle of it.
func (c *conductor) killCheckpoint(ctx context.Context, f Fault, leader *process, d *Done) error {
	rng := rand.New(rand.NewPCG(c.plan.Seed, math.Float64bits(f.Pick)))
	living := c.living()
	asks := living[rng.IntN(len(living))]
	leader.caught = false
	if err := leader.do(command{Do: "trap", Trap: &trap{Below: filepath.Join("party", "replicas"), After: rng.IntN(checkpointSteps)}}); err != nil {
		return err
	}
	if err := asks.do(command{Do: "snapshot"}); err != nil {
		return err
	}
	c.await(ctx, time.Second, func() bool { return leader.caught || c.crew[leader.place] != leader })
	switch {
	case !leader.caught:
		d.Note = "no checkpoint came that far"
	case asks == leader || rng.IntN(3) > 0:
		return c.replace(leader, leader.kill(), f.For)
	default:
		d.Note = fmt.Sprintf("process %d, for which it was, was killed", asks.place)
		if err := c.replace(asks, asks.kill(), f.For); err != nil {
			return err
		}
	}
	return leader.do(command{Do: "trap"})
}

// replaySteps is about how many changes of files it takes to become the leader.
const replaySteps = 32

// trapReplay has the processes that are started from now on be caught as they take
// over, the nth time.
func (c *conductor) trapReplay(f Fault, n int) {
	c.trap = &trap{After: int(math.Mod(f.Pick*float64(7*n), 1) * replaySteps)}
}

// awaitReplay waits until one is caught.
func (c *conductor) awaitReplay(ctx context.Context, f Fault) {
	c.await(ctx, f.For+time.Second, func() bool {
		for _, p := range c.crew {
			if p.caught {
				return true
			}
		}
		return false
	})
	c.trap = nil
}

// starve leaves a process no files to open for a while.
func (c *conductor) starve(ctx context.Context, f Fault, p *process) error {
	if err := p.do(command{Do: "starve", Times: int(f.Pick*100) % 4}); err != nil {
		return err
	}
	c.await(ctx, f.For, nil)
	_ = p.do(command{Do: "feed"}) // it may have ended
	return nil
}
