package chaos_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// What the leader is found by is removed indeed, and nobody's calls fail. A leader that has no more to
// show, or not yet, may be met once.
func TestRun_RemovesWhatTheLeaderIsFoundBy(t *testing.T) {
	for _, kind := range []chaos.FaultKind{chaos.RemoveSocket, chaos.RemoveEndpoint} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == chaos.RemoveSocket && runtime.GOOS == "windows" {
				t.Skip("there is no socket file on Windows, which has named pipes: run this on Unix")
			}
			p := plan(t, "good")
			p.Duration = 4 * time.Second
			for i := range 3 {
				p.Script = append(p.Script, chaos.Fault{Kind: kind, At: 500*time.Millisecond + time.Duration(i)*1200*time.Millisecond})
			}
			report, got := run(t, p)
			if got != "" {
				t.Error(got)
			}
			done := 0
			for _, d := range report.Faults {
				if d.Note == "" {
					done++
				} else {
					t.Log(d.Note)
				}
			}
			if done < 2 {
				t.Errorf("%d of 3 were removed", done)
			}
		})
	}
}
