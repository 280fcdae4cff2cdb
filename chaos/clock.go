package chaos

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// clock is by how much the wall clock was set forward, or back.
type clock struct{ by atomic.Int64 }

func (c *clock) set(by time.Duration) { c.by.Store(int64(by)) }

// over returns now with that added; nil is time.Now.
func (c *clock) over(now func() time.Time) func() time.Time {
	if now == nil {
		now = time.Now
	}
	return func() time.Time { return now().Add(time.Duration(c.by.Load())) }
}

// clock returns what the clocks of all processes were set to.
func (c *conductor) clock() time.Duration {
	if len(c.clocks) == 0 {
		return 0
	}
	return c.clocks[len(c.clocks)-1]
}

// setClock sets the clock of the machine: of all processes there are, and of those
// that will be.
func (c *conductor) setClock(f Fault) (note string) {
	c.clocks = append(c.clocks, c.clock()+f.For)
	for _, p := range c.crew {
		_ = p.do(command{Do: "clock", Clock: c.clock()}) // it may have ended
	}
	return fmt.Sprintf("by %s, to %s from the right time", f.For, c.clock())
}

// judgeTimes looks whether the times of what was written go back anywhere in the
// log that is left.
func judgeTimes(dir string, clocks []time.Duration) (v Verdict) {
	v.Name = "times"
	entries, err := readTimes(dir, &v)
	if err != nil {
		v.violate(err.Error())
	}
	v.Detail = fmt.Sprintf("of %d entries, one after the other", entries)
	if len(clocks) > 0 {
		v.Detail += fmt.Sprintf(", while the clock was between %s and %s from the right time", min(0, slices.Min(clocks)), max(0, slices.Max(clocks)))
	}
	return v
}

func readTimes(dir string, v *Verdict) (entries int, err error) {
	r, err := party.OpenLog(dir, 0)
	if err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var last party.LogEntry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return entries, fmt.Errorf("read the log: %w", err)
		}
		if e.Origin == "" {
			continue // a term begins when its leader's clock says so
		}
		if entries > 0 && e.Time.Before(last.Time) {
			v.violate(fmt.Sprintf("entry %d of term %d is of %s, and the one before, %d of term %d, of %s",
				e.Seq, e.Term, e.Time.Format(time.RFC3339Nano), last.Seq, last.Term, last.Time.Format(time.RFC3339Nano)))
		}
		last = e
		entries++
	}
}
