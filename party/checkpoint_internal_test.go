package party

import (
	"testing"
	"time"
)

func TestHolds_KeepTheLogForAWhile(t *testing.T) {
	var h holds
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	if got := h.keep(7, at(0)); got != 7 {
		t.Errorf("without holds %d", got)
	}
	h.done(h.begin(3), at(0))
	h.done(h.begin(5), at(holdFor/2))
	for _, c := range []struct {
		after   time.Duration
		durable uint64
		want    uint64
	}{
		{holdFor / 2, 9, 3}, {holdFor, 9, 3}, {holdFor, 2, 2}, {holdFor + 1, 9, 5}, {holdFor * 3 / 2, 9, 5}, {holdFor*3/2 + 1, 9, 9},
	} {
		if got := h.keep(c.durable, at(c.after)); got != c.want {
			t.Errorf("%s later up to %d of %d may go, want %d", c.after, got, c.durable, c.want)
		}
	}
	if len(h.list) != 0 {
		t.Errorf("%d holds are left", len(h.list))
	}
}

// A checkpoint that takes long keeps its log all the while, and then as long as
// any other, whatever began and ended beside it.
func TestHolds_KeepTheLogOfOneThatIsBeingMade(t *testing.T) {
	var h holds
	start := time.Unix(1000, 0)
	slow := h.begin(3)
	h.done(h.begin(5), start)
	if got := h.keep(9, start.Add(100*holdFor)); got != 3 || len(h.list) != 1 {
		t.Errorf("up to %d may go while it is being made, %d holds; want 3 and 1", got, len(h.list))
	}
	end := start.Add(100 * holdFor)
	h.done(slow, end)
	if got := h.keep(9, end.Add(holdFor)); got != 3 {
		t.Errorf("up to %d may go once it is there, want 3", got)
	}
	if got := h.keep(9, end.Add(holdFor+1)); got != 9 || len(h.list) != 0 {
		t.Errorf("later up to %d may go, %d holds", got, len(h.list))
	}
}
