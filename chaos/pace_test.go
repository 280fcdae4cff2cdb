package chaos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// looks has one look after the other, and returns what was found.
func looks(p chaos.Pace, n int) (found []string) {
	for range n {
		if err := p.Look(); err != nil {
			found = append(found, err.Error())
		}
	}
	return found
}

func TestPace_FindsSilence(t *testing.T) {
	const many = 10 * chaos.PaceSilent
	for _, tc := range []struct {
		name string
		do   func(writer, subscriber chaos.Pace)
		want bool
	}{
		{"nothing is due", func(_, s chaos.Pace) { s.Delivered(7) }, false},
		{"all is delivered", func(w, s chaos.Pace) { w.Due(7); s.Delivered(7) }, false},
		{"it delivers what nobody here was told of", func(w, s chaos.Pace) { w.Due(7); s.Delivered(9) }, false},
		{"nobody subscribes", func(w, _ chaos.Pace) { w.Due(7) }, false},
		{"the subscriber has left", func(w, s chaos.Pace) { s.Delivered(3); w.Due(7); s.Leave() }, false},
		{"nothing was delivered at all", func(w, s chaos.Pace) { s.Delivered(0); w.Due(7) }, true},
		{"it has stopped", func(w, s chaos.Pace) { w.Due(7); s.Delivered(6) }, true},
		{"answers come in any order", func(w, s chaos.Pace) { w.Due(7); w.Due(5); s.Delivered(6) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			paces := chaos.NewPaces(2)
			tc.do(paces[0], paces[1])
			if found := looks(paces[0], many); found != nil {
				t.Errorf("of the writer: %q", found)
			}
			found := looks(paces[1], many)
			if tc.want != (len(found) == 1) || len(found) > 1 {
				t.Errorf("found %q", found)
			}
			if tc.want && !strings.Contains(found[0], "that 7 has committed") {
				t.Errorf("it says %q", found[0])
			}
		})
	}
}

// What is slow is not silent, and counts anew after each event.
func TestPace_SlowIsNotSilent(t *testing.T) {
	p := chaos.NewPaces(1)[0]
	p.Due(1000)
	for seq := range uint64(20) {
		p.Delivered(seq + 1)
		if found := looks(p, chaos.PaceSilent); found != nil {
			t.Fatalf("event %d: %q", seq, found)
		}
	}
	if looks(p, 1) == nil {
		t.Error("it does not count on")
	}
}

// Who closes waits for what is due then, and for no more.
func TestPace_Arrives(t *testing.T) {
	for name, end := range map[string]func(p chaos.Pace){
		"delivered": func(p chaos.Pace) { p.Due(9); p.Delivered(5); p.Delivered(7) },
		"left":      func(p chaos.Pace) { p.Leave() },
		"silent":    func(p chaos.Pace) { looks(p, 2*chaos.PaceSilent) },
	} {
		t.Run(name, func(t *testing.T) {
			p := chaos.NewPaces(1)[0]
			p.Delivered(4)
			p.Due(7)
			arrived := make(chan struct{})
			go func() { p.Arrive(); close(arrived) }()
			select {
			case <-arrived:
				t.Fatal("it has not, and is said to have")
			case <-time.After(20 * time.Millisecond): // time to be wrong in
			}
			end(p)
			select {
			case <-arrived:
			case <-time.After(20 * time.Second):
				t.Fatal("it has, and nobody noticed")
			}
		})
	}
}

// A process that is stopped for longer than a subscription may be silent, with
// others writing on, is no violation.
func TestRun_StoppedSubscriberIsNotSilent(t *testing.T) {
	if !slices.Contains(chaos.AllFaults(), chaos.StopFollower) {
		t.Skip("no process can be stopped on this system")
	}
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	p := plan(t, "lists")
	p.Lanes, p.Duration = 2, 8*time.Second
	p.Script = []chaos.Fault{{Kind: chaos.StopFollower, At: 500 * time.Millisecond, For: 6 * time.Second}}
	report, got := run(t, p)
	if got != "" || report.Writes == 0 {
		t.Errorf("%d writes, violations %q", report.Writes, got)
	}
}
