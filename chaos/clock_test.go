package chaos_test

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// The clock is set by a day forward and back, again and again, under retention by
// age and kills. What Pebble has not flushed yet is not removed, however old it
// seems; what is old is.
func TestRun_RetentionByAgeWhileTheClockJumps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	p := plan(t, "aged")
	p.Processes, p.Duration = 3, 8*time.Second
	const day = 24 * time.Hour
	for i, by := range []time.Duration{day, 2 * time.Hour, -10 * day, 3 * time.Hour, 20 * day, day, -30 * day, 2 * day, 2 * time.Hour} {
		at := 700*time.Millisecond + time.Duration(i)*700*time.Millisecond
		p.Script = append(p.Script, chaos.Fault{Kind: chaos.ClockJump, At: at, For: by},
			chaos.Fault{Kind: []chaos.FaultKind{chaos.KillAll, chaos.KillLeader, chaos.Resign}[i%3], At: at + 350*time.Millisecond, Pick: 0.9})
	}
	// Several segments that will be old, however little the run itself gets to write.
	before, err := party.Open(t.Context(), filepath.Join(p.Dir, "db"), p.Job.Options)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		if err := before.Set(t.Context(), fmt.Appendf(nil, "before %d", i), make([]byte, 1<<20), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	report, got := run(t, p)
	if got != "" {
		t.Error(got)
	}
	// On a busy machine no leader of the run may have lived for long enough to remove anything; this one does.
	dir, o := filepath.Join(p.Dir, "db"), *p.Job.Options
	o.Now = func() time.Time { return time.Now().Add(60 * day) }
	after, err := party.Open(t.Context(), dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		// What is removed is removed after a flush, and that comes after some writes.
		if err := after.Set(t.Context(), []byte("after"), make([]byte, 100<<10), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		switch first := firstSeq(t, dir); {
		case first >= 10:
			return
		case time.Now().After(deadline):
			t.Fatalf("the log begins with %d: nothing was removed, of %d writes", first, report.Writes)
		}
	}
}

// firstSeq returns the sequence number of the first entry in the log of dir.
func firstSeq(t *testing.T, dir string) uint64 {
	t.Helper()
	r, err := party.OpenLog(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return e.Seq
}

// A clock of the machine is all processes'.
func TestRun_ClockJump(t *testing.T) {
	p := plan(t, "good")
	p.Duration = 2 * time.Second
	p.Script = []chaos.Fault{
		{Kind: chaos.ClockJump, At: 300 * time.Millisecond, For: 48 * time.Hour},
		{Kind: chaos.KillAll, At: 600 * time.Millisecond, Pick: 0.9},
		{Kind: chaos.ClockJump, At: 1200 * time.Millisecond, For: -96 * time.Hour},
	}
	started := time.Now()
	report, got := run(t, p)
	if got != "" {
		t.Error(got)
	}
	for _, v := range report.Verdicts {
		if v.Name == "times" && !strings.Contains(v.Detail, "between -48h0m0s and 48h0m0s") {
			t.Errorf("it says %q", v.Detail)
		}
	}
	times, terms := map[int]int{}, map[int]int{} // entries and beginnings of terms, by the whole days that their time is ahead
	r, err := party.OpenLog(filepath.Join(p.Dir, "db"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ahead := int(e.Time.Sub(started) / (24 * time.Hour))
		if e.Origin != "" {
			times[ahead]++
		} else {
			terms[ahead]++
		}
	}
	if len(times) != 2 || times[0] == 0 || times[2] == 0 {
		t.Errorf("entries by the days that they are ahead: %v", times)
	}
	// Processes that are started later have the clock that the others have, whichever
	// that is by then; the term of who judges at the end has the right one.
	if len(terms) < 2 {
		t.Errorf("terms by the days that they are ahead: %v", terms)
	}
}

// handle opens a database whose clock can be set.
func handle(t *testing.T, dir string, clock *time.Time) *party.DB {
	t.Helper()
	db, err := party.Open(t.Context(), dir, &party.Options{Now: func() time.Time { return *clock }})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestTimes_Judge(t *testing.T) {
	dir := t.TempDir()
	clock := time.Now()
	for _, by := range []time.Duration{0, time.Hour, -24 * time.Hour, 48 * time.Hour} {
		clock = clock.Add(by)
		db := handle(t, dir, &clock)
		if err := db.Set(t.Context(), []byte("k"), nil, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	v := chaos.JudgeTimes(dir, []time.Duration{time.Hour, -23 * time.Hour})
	expect(t, v, "")
	if want := "of 4 entries, one after the other, while the clock was between -23h0m0s and 1h0m0s from the right time"; v.Detail != want {
		t.Errorf("it says %q, want %q", v.Detail, want)
	}
	expect(t, chaos.JudgeTimes(t.TempDir(), nil), "read the log")
}
