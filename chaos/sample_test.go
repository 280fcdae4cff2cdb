package chaos_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// sample is a report as a run leaves it, of n calls, for the tests of the page:
// it has every kind of fault, and every state but those that Measured finds.
func sample(t *testing.T, n int, violated bool) *chaos.Report {
	t.Helper()
	const second, processes = int64(1e9), 4
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	duration := max(8*second, int64(n)*second/2000)
	s := &chaos.Report{
		Seed: 7, Duration: duration, Processes: processes, System: "linux/amd64, 2 processors, go1.26",
		Verdicts: []chaos.Verdict{
			{Name: "processes", Detail: "12 processes started; those that were not killed ended well"},
			{Name: "calls", Detail: fmt.Sprintf("%d calls, none failed but by Close", n)},
			{Name: "bank", Detail: "4,201 moves took effect once", Undecided: "a part could not be judged within 1m0s"},
		},
	}
	kinds := chaos.AllFaults()
	leader, term, pid, stalled := 0, uint64(1), 100, [][2]int64{}
	since := make([]int64, processes)
	span := func(p int, state chaos.State, to int64) {
		span := chaos.Span{Process: p, PID: 100 + p, State: state, From: since[p], To: to}
		if state == chaos.Leading {
			span.Term = term
		}
		s.Spans = append(s.Spans, span)
		since[p] = to
	}
	role := func(p int) chaos.State {
		if p == leader {
			return chaos.Leading
		}
		return chaos.Following
	}
	for i := 0; ; i++ {
		at := second/2 + int64(i)*duration/max(16, duration/second) + rng.Int64N(second/5)
		if at > duration-second {
			break
		}
		f := chaos.Done{Kind: kinds[i%len(kinds)], At: at, Until: at + rng.Int64N(second/5), Process: rng.IntN(processes), PID: pid + i}
		last := int64(math.Exp(rng.NormFloat64()/2) * 15e6)
		switch f.Kind {
		case chaos.KillLeader, chaos.CloseLeader, chaos.Resign:
			f.Process = leader
			span(leader, chaos.Leading, at)
			leader, term = (leader+1)%processes, term+1
			span(f.Process, chaos.Starting, at+last)
			span(leader, chaos.Following, at)
			span(leader, chaos.Electing, at+last)
		case chaos.KillAll, chaos.KillReplay, chaos.TornTail:
			f.Process, last = -1, last*10
			for p := range processes {
				span(p, role(p), at)
				since[p] = at + last/2 // dead
				span(p, chaos.Starting, at+last)
			}
			term++
		case chaos.StopLeader:
			f.Process, last = leader, last*20
			span(leader, chaos.Leading, at)
			span(leader, chaos.Stopped, at+last)
		default:
			last = 0
		}
		stalled = append(stalled, [2]int64{at, at + last})
		s.Faults = append(s.Faults, f)
	}
	for p := range processes {
		span(p, role(p), duration)
	}
	names := []struct {
		name, workload string
		write          bool
		took           float64
	}{{"get", "registers", false, 3e5}, {"set", "registers", true, 2e6}, {"append", "lists", true, 3e6}, {"total-iterator", "bank", false, 8e5}}
	calls := make([]chaos.Call, n)
	for i := range calls {
		kind := names[rng.IntN(len(names))]
		c := call("a", kind.name, "k", "", "", rng.Int64N(duration), 0)
		c.Workload, c.Process, c.Write = kind.workload, rng.IntN(processes), kind.write
		c.End = c.Start + int64(kind.took*math.Exp(rng.NormFloat64()/2))
		for _, gap := range stalled {
			if c.Start < gap[1] && c.End > gap[0] {
				c.End = gap[1] + rng.Int64N(5e6)
				if rng.IntN(40) == 0 {
					c.End = 0
				}
				break
			}
		}
		calls[i] = c
	}
	slices.SortFunc(calls, func(a, b chaos.Call) int { return int(a.Start - b.Start) })
	if violated {
		v, pictures := chaos.JudgeRegistersWith([]chaos.Call{
			call("a", "set", "register/9/1", "a.1", "", 1e6, 2e6), call("b", "set", "register/9/1", "b.1", "", 15e5, 3e6),
			call("a", "get", "register/9/1", "", "b.1", 4e6, 5e6), call("b", "get", "register/9/1", "", "a.1", 6e6, 7e6),
		})
		v.Name = "registers"
		s.Verdicts[2].Undecided = ""
		s.Verdicts = append(s.Verdicts, v)
		return chaos.Measured(s, calls, pictures)
	}
	s.Verdicts[2].Undecided = ""
	return chaos.Measured(s, calls, nil)
}
