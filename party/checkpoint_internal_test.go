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
	h.add(3, at(0))
	h.add(5, at(holdFor/2))
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
