package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Done is a fault that happened. Times are nanoseconds, At since the work began.
type Done struct {
	Kind    FaultKind `json:"kind"`
	At      int64     `json:"at"`
	Until   int64     `json:"until"`   // when it was over: the process goes on, the last kill was done
	Process int       `json:"process"` // place of the process; -1: all, or none in particular
	PID     int       `json:"pid,omitempty"`
	Note    string    `json:"note,omitempty"`
	// Gap is the longest time without a write that succeeded, of those that no
	// fault but this one began in, or that came before the next.
	Gap   int64 `json:"gap"`
	GapAt int64 `json:"gapAt"` // when that began
	// Recovery is the time from At to the end of the first write that was begun
	// later and succeeded; 0 if none did before the next fault.
	Recovery int64 `json:"recovery,omitempty"`
}

// errNoVictim: there is no process that the fault could be done to.
var errNoVictim = errors.New("no process qualifies")

// inflict does a fault and takes note of it.
func (c *conductor) inflict(ctx context.Context, f Fault) {
	d := &Done{Kind: f.Kind, Process: -1}
	victim, err := c.victim(ctx, f)
	d.At = c.now()
	c.noteCommitWord(f)
	if err == nil {
		if victim != nil {
			d.Process, d.PID = victim.place, victim.pid
		}
		err = c.do(ctx, f, victim, d)
	}
	if err != nil {
		d.Note = "not done: " + err.Error()
	}
	d.Until = c.now()
	c.report.Faults = append(c.report.Faults, *d)
	if c.plan.Progress != nil {
		c.plan.Progress(strings.TrimSpace(fmt.Sprintf("%9s  %-15s %s %s", since(d.At), d.Kind, whom(*d), d.Note)))
	}
}

func whom(d Done) string {
	if d.Process < 0 {
		return ""
	}
	return fmt.Sprintf("process %d", d.Process)
}

// victim returns the process that a fault is for, nil if it is for all.
func (c *conductor) victim(ctx context.Context, f Fault) (*process, error) {
	switch f.Kind {
	case KillAll, KillReplay, TornTail, BitFlip, DiskFull, PowerCut, ClockJump:
		return nil, nil
	case KillLeader, StopLeader, CloseLeader, Resign, RemoveSocket, RemoveEndpoint, SyncError, ShortWrite, KillCheckpoint:
		if !c.await(ctx, settle, func() bool { return c.leader() != nil }) {
			c.violate("nobody leads %s before %s", settle, f.Kind)
			return nil, errNoVictim
		}
		return c.leader(), nil
	default:
		living := c.living()
		if f.Kind != Reopen && f.Kind != NoFiles {
			living = slices.DeleteFunc(living, func(p *process) bool { return p.state == Leading })
		}
		if len(living) == 0 {
			return nil, errNoVictim
		}
		return living[int(f.Pick*float64(len(living)))], nil
	}
}

func (c *conductor) do(ctx context.Context, f Fault, p *process, d *Done) error {
	switch f.Kind {
	case KillLeader, KillFollower:
		return c.replace(p, p.kill(), f.For)
	case CloseLeader, CloseFollower:
		p.dismiss()
		return c.closed(ctx, p, f.For)
	case StopLeader, StopFollower:
		if err := p.stop(d.At); err != nil {
			return err
		}
		c.await(ctx, f.For, nil)
		return p.resume(c.now())
	case Resign:
		return p.do(command{Do: "resign"})
	case Reopen:
		return p.do(command{Do: "reopen", Times: 1 + int(f.Pick*5)})
	case RemoveSocket, RemoveEndpoint:
		return c.removeFile(f.Kind)
	case KillStart:
		return c.killStart(ctx, f, p)
	case DiskFull:
		return c.fillDisk(ctx, f)
	case SyncError:
		return c.failSyncs(ctx, f, p, d)
	case ShortWrite:
		return c.failWrites(ctx, f, p)
	case KillCheckpoint:
		return c.killCheckpoint(ctx, f, p, d)
	case NoFiles:
		return c.starve(ctx, f, p)
	case ClockJump:
		d.Note = c.setClock(f)
		return nil
	case KillAll, KillReplay, TornTail, BitFlip, PowerCut:
		return c.killAll(ctx, f, d)
	default:
		return fmt.Errorf("fault %q is unknown", f.Kind)
	}
}

// replace has another process start in the place of p, which has been killed.
func (c *conductor) replace(p *process, err error, wait time.Duration) error {
	if err != nil {
		return err
	}
	c.due = append(c.due, restart{place: p.place, at: time.Now().Add(wait)})
	delete(c.crew, p.place)
	c.ending = append(c.ending, p)
	return nil
}

// closed waits for a process that was told to close, and starts another.
func (c *conductor) closed(ctx context.Context, p *process, wait time.Duration) error {
	if !c.await(ctx, c.closeLimit(), func() bool { return c.crew[p.place] != p }) && context.Cause(ctx) == nil {
		if err := c.stuck(p); err != nil {
			return err
		}
		c.await(ctx, settle, func() bool { return c.crew[p.place] != p })
	}
	c.due = append(c.due, restart{place: p.place, at: time.Now().Add(wait)})
	return nil
}

// killStart kills a process, and those that are started in its place as they
// start, and leaves the last.
func (c *conductor) killStart(ctx context.Context, f Fault, p *process) error {
	for range 3 {
		if err := c.replace(p, p.kill(), 0); err != nil {
			return err
		}
		place := p.place
		if !c.await(ctx, settle, func() bool { return c.crew[place] != nil }) {
			return errNoVictim // the run is over
		}
		p = c.crew[place]
		c.await(ctx, f.For, nil)
		if c.crew[p.place] != p {
			return nil // it ended by itself, which is a violation that was noted
		}
	}
	return nil
}

// killAll kills all processes at once, does to the log what is asked, and starts
// them again; and once more when they are to die as they take over.
func (c *conductor) killAll(ctx context.Context, f Fault, d *Done) error {
	rounds := 1
	if f.Kind == KillReplay {
		rounds = 3
	}
	for i := range rounds {
		if i > 0 {
			c.awaitReplay(ctx, f)
		}
		err := c.killEveryone(ctx)
		if err == nil {
			d.Note, err = c.whileDead(ctx, f)
		}
		if err != nil {
			c.failed = err // it is no longer known who is there
			return err
		}
		if i < rounds-1 {
			c.trapReplay(f, i+1)
		}
		c.due, c.halted = nil, false
		for place := range c.plan.Processes {
			c.due = append(c.due, restart{place: place, at: time.Now()})
		}
	}
	return nil
}

// whileDead does what is to be done to the files when no process is left, and says
// what that was.
func (c *conductor) whileDead(ctx context.Context, f Fault) (string, error) {
	switch f.Kind {
	case TornTail:
		return tearTail(filepath.Join(c.db, "party", "log"), f.Pick)
	case BitFlip:
		return c.flipBit(ctx, f)
	case PowerCut:
		return c.cutPower(f)
	}
	return "", nil
}

// killEveryone returns when no process is left: the kernel has closed its files.
func (c *conductor) killEveryone(ctx context.Context) error {
	c.halted = true
	for _, p := range c.crew {
		if err := p.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	if !c.gone(ctx, settle) {
		return fmt.Errorf("killed processes have not ended within %s", settle)
	}
	return nil
}

// removeFile deletes what followers find the leader by. It may be gone: the
// leader is about to lead no more.
func (c *conductor) removeFile(kind FaultKind) error {
	name := "endpoint"
	if kind == RemoveSocket {
		name = "nats.sock"
	}
	return os.Remove(filepath.Join(c.db, "party", name))
}

// tearTail writes garbage behind the end of the log, as a crash of the machine in
// the middle of a write can leave it. Frames end with fewer than 64 zeros, so 64
// bytes behind the last that is none no frame is touched.
func tearTail(dir string, pick float64) (string, error) {
	segments, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(segments) == 0 {
		return "", errors.Join(err, fs.ErrNotExist)
	}
	path := slices.Max(segments) // names are numbers of one length
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	if end < 64 {
		return "the last segment has no entries: left alone", nil // nor a header maybe, and garbage would be taken for data
	}
	at := (end+7)&^7 + 64
	garbage := make([]byte, 1+int(pick*4000))
	for i := range garbage {
		garbage[i] = byte(i*i>>3 + i + 1)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt(garbage, int64(at))
	return fmt.Sprintf("%d bytes of garbage at %d of %s", len(garbage), at, filepath.Base(path)), errors.Join(err, f.Close())
}
