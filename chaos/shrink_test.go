package chaos_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// What is left fails, and not without any one of its faults.
func TestShrink_FindsWhatItTakes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	for n := range 40 {
		var faults []chaos.Fault
		for i := range n {
			faults = append(faults, chaos.Fault{At: time.Duration(i)})
		}
		var needed []chaos.Fault
		for _, f := range faults {
			if rng.IntN(10) == 0 {
				needed = append(needed, f)
			}
		}
		got, runs := chaos.ShrinkBy(faults, func(part []chaos.Fault) bool {
			for _, f := range needed {
				if !slices.Contains(part, f) {
					return false
				}
			}
			return true
		})
		if !slices.Equal(got, needed) {
			t.Errorf("of %d faults %v are left, %v are needed", n, got, needed)
		}
		if most := 8 + 4*(len(needed)+1)*8; runs > most {
			t.Errorf("%d runs for %d of %d faults", runs, len(needed), n)
		}
	}
}

// A plan that fails for its power cut is one power cut in the end.
func TestShrink_Run(t *testing.T) {
	if !slices.Contains(chaos.AllFaults(), chaos.PowerCut) {
		t.Skip("a power cut needs hard links and inodes, which Windows does not show: run this on Unix")
	}
	if testing.Short() {
		t.Skip("runs a plan a dozen times: run it without -short")
	}
	p := plan(t, "unsynced")
	p.Duration = 2 * time.Second
	for i, kind := range []chaos.FaultKind{chaos.Resign, chaos.PowerCut, chaos.CloseFollower, chaos.PowerCut} {
		p.Script = append(p.Script, chaos.Fault{Kind: kind, At: time.Duration(i+1) * 300 * time.Millisecond, Pick: float64(i+1) / 5})
	}
	small, err := chaos.Shrink(t.Context(), p, 12)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs; %v", small.Runs, small.Plan.Script)
	if small.Report.OK() || len(small.Plan.Script) > 2 || slices.ContainsFunc(small.Plan.Script, func(f chaos.Fault) bool { return f.Kind != chaos.PowerCut }) {
		t.Errorf("left are %v", small.Plan.Script)
	}
	left, err := os.ReadDir(p.Dir)
	if err != nil || len(left) != 1 {
		t.Errorf("the folders %v are left (%v)", left, err)
	}
}

func TestShrink_NotFailing(t *testing.T) {
	p := plan(t, "good")
	p.Duration = 300 * time.Millisecond
	if _, err := chaos.Shrink(t.Context(), p, 5); !errors.Is(err, chaos.ErrNotShrunk) {
		t.Errorf("error %v, want %v", err, chaos.ErrNotShrunk)
	}
}
