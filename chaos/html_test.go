package chaos_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// pageOf returns the page of n calls, and the calls in it. One call is slow.
func pageOf(t *testing.T, n int) (page string, start, took []int64) {
	t.Helper()
	calls := make([]chaos.Call, n)
	for i := range calls {
		at := int64(i) * 50_000
		calls[i] = call("a", "get", "k", "", "", at, at+200_000+int64(i%97)*31_000)
		calls[i].Workload = "</script><b>"
	}
	calls[n/2].End += 3_000_000_000
	calls[n-1].End = 0
	r := chaos.Measured(&chaos.Report{Duration: int64(n) * 50_000, Processes: 2,
		Faults: []chaos.Done{{Kind: chaos.KillLeader, At: 1000, Note: "</script>"}}}, calls, nil)
	var b bytes.Buffer
	if err := r.WriteHTML(&b, "report."); err != nil {
		t.Fatal(err)
	}
	data := regexp.MustCompile(`(?s)id="calls">(.*?)</script>`).FindSubmatch(b.Bytes())
	var columns struct{ Start, Took []int64 }
	if err := json.Unmarshal(data[1], &columns); err != nil {
		t.Fatal(err)
	}
	return b.String(), columns.Start, columns.Took
}

// The page has all calls, or of very many a part with all that are slow; and no
// text of a user's workload is taken for markup.
func TestReport_Page(t *testing.T) {
	for _, n := range []int{3, 1000, 100_000, 400_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			page, start, took := pageOf(t, n)
			if n <= 100_000 && len(start) != n || len(start) > 130_000 || len(took) != len(start) {
				t.Errorf("%d and %d points", len(start), len(took))
			}
			slowest, unanswered := int64(0), 0
			for _, d := range took {
				slowest = max(slowest, d)
				if d < 0 {
					unanswered++
				}
			}
			if slowest < 3_000_000 || unanswered != 1 {
				t.Errorf("the slowest took %d µs, %d without an answer", slowest, unanswered)
			}
			if len(page) > 8<<20 || strings.Contains(page, "<b>") && strings.Contains(page, "</script><b>") {
				t.Errorf("%d bytes, or a workload's name is markup", len(page))
			}
		})
	}
}
