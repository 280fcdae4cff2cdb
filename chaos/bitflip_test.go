package chaos_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// The frames that bits are turned over in are those that party writes.
func TestLogFrames_AreThoseOfTheLog(t *testing.T) {
	dir := t.TempDir()
	db, err := party.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []uint64{}
	for i := range 20 {
		var b pebble.Batch
		if err := b.Set([]byte("k"), make([]byte, i*i), nil); err != nil {
			t.Fatal(err)
		}
		seq, err := db.Apply(t.Context(), &b, pebble.Sync)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, seq)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at, seqs := chaos.LogFrames(b)
	if len(seqs) < len(want)+1 {
		t.Fatalf("frames of %v at %v, entries %v", seqs, at, want)
	}
	for i, seq := range want { // behind the record that began the term
		if seqs[i+1] != seq {
			t.Errorf("frame %d is of %d, want %d", i+1, seqs[i+1], seq)
		}
	}
	chaos.LogFrames(b[:200])
}

// Of a record behind a gap that is damaged, the log can only say that it follows on
// the one before. Seed 95028 had a bit turned over in one.
func TestLogFrames_KnowWhatFollowsOnAGap(t *testing.T) {
	b := make([]byte, 128)
	binary.LittleEndian.PutUint64(b[40:], 5) // the last record of the segment before
	for _, f := range []struct {
		seq  uint64
		kind byte // entry 1, term 2, reservation 3
	}{{6, 1}, {6, 3}, {70, 2}, {71, 1}} {
		frame := make([]byte, 32+8)
		binary.LittleEndian.PutUint32(frame[4:], 8)
		binary.LittleEndian.PutUint64(frame[8:], f.seq)
		frame[24] = f.kind
		b = append(b, frame...)
	}
	if got, want := chaos.FollowingOn(b), []uint64{6, 7, 7, 71}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestRun_RefusesFlippedBits(t *testing.T) {
	p := plan(t, "good")
	p.Duration = 2 * time.Second
	for i := range 3 {
		p.Script = append(p.Script, chaos.Fault{Kind: chaos.BitFlip, At: time.Duration(i+1) * 400 * time.Millisecond, Pick: float64(i+1) / 4})
	}
	report, got := run(t, p)
	if got != "" || len(report.Faults) != 3 {
		t.Errorf("violations %q, faults %v", got, report.Faults)
	}
	for _, d := range report.Faults {
		t.Log(d.Note)
	}
}
