package main

import (
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

var (
	leading   = party.Leading.String()
	following = party.Following.String()
)

// history is who led when, and how long it took after each kill until everybody
// wrote again.
type history struct {
	reigns    []reign
	failovers []failover
}

// reign is the time that one process led in one term.
type reign struct {
	pid      int
	term     uint64
	from, to time.Time // to is zero as long as it leads
	end      string    // why it ended
}

// failover is what followed the kill of a leader.
type failover struct {
	at   time.Time // of the kill
	pid  int       // of the killed
	term uint64    // that it led
	// back is when the survivors had a write acknowledged again; zero for those
	// that had none yet.
	back map[*process]time.Time
}

// role takes a worker's change of role.
func (h *history) role(p *process, r report) {
	why := r.Cause
	if why == "" {
		why = "handed over"
	}
	h.end(p, r.At, why)
	if r.Role == leading {
		h.reigns = append(h.reigns, reign{pid: p.pid, term: r.Term, from: r.At})
	}
}

// end ends the reign of p, if it has one. It need not be the last of the list:
// the next leader's report may be here before p's.
func (h *history) end(p *process, at time.Time, why string) {
	for i := range h.reigns {
		if r := &h.reigns[i]; r.pid == p.pid && r.to.IsZero() {
			r.to, r.end = at, why
		}
	}
}

// kill takes the kill of a leader, just before it happens.
func (h *history) kill(p *process, at time.Time, survivors []*process) {
	f := failover{at: at, pid: p.pid, term: p.role.Term, back: map[*process]time.Time{}}
	for _, s := range survivors {
		f.back[s] = time.Time{}
		s.acks = nil
	}
	h.failovers = append(h.failovers, f)
	h.end(p, at, "killed")
}

// lost takes the death of a worker that the job did not kill.
func (h *history) lost(p *process, at time.Time) {
	h.end(p, at, "killed by somebody else")
	if f := h.open(); f != nil {
		delete(f.back, p)
	}
}

// acked takes an acknowledgement.
func (h *history) acked(p *process, at time.Time) {
	if h.awaits(p) {
		p.acks = append(p.acks, at)
	}
}

// awaits tells whether p survived the last kill and does not write again yet.
func (h *history) awaits(p *process) bool {
	f := h.open()
	if f == nil {
		return false
	}
	back, survivor := f.back[p]
	return survivor && back.IsZero()
}

// settle looks which survivors of the last kill write again. An acknowledgement
// counts if it came after the worker had taken up its role in a later term: the
// dead leader's last ones may still be on their way. A report of a role may come
// behind those of acknowledgements that followed it, hence the list of them.
func (h *history) settle() {
	f := h.open()
	if f == nil {
		return
	}
	for p, back := range f.back {
		if !back.IsZero() || !p.joined() || p.role.Term <= f.term {
			continue
		}
		for _, at := range p.acks {
			if !at.Before(p.role.At) {
				f.back[p] = at
				p.acks = nil
				break
			}
		}
	}
}

// open returns the last failover if not all of its survivors write again.
func (h *history) open() *failover {
	if n := len(h.failovers); n > 0 && !h.failovers[n-1].over() {
		return &h.failovers[n-1]
	}
	return nil
}

func (f *failover) over() bool {
	for _, back := range f.back {
		if back.IsZero() {
			return false
		}
	}
	return true
}

// took returns the time from the kill to the first and the last survivor's write.
func (f *failover) took() (first, last time.Duration) {
	for _, back := range f.back {
		d := back.Sub(f.at)
		if first == 0 || d < first {
			first = d
		}
		last = max(last, d)
	}
	return first, last
}
