package eventlog_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func TestReader_PassedAndBehind(t *testing.T) {
	fs := vfs.NewMem()
	l, err := eventlog.Open("/log", eventlog.Options{FS: fs, ID: testID, SegmentBytes: 8 << 10, ChunkBytes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.StartTerm(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	r, err := eventlog.OpenReader(fs, "/log", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.ID() != testID {
		t.Errorf("the log is of %v", r.ID())
	}
	const entries, size = 100, 1000
	for range entries {
		if _, err := l.Append([][]byte{make([]byte, size)}, false); err != nil {
			t.Fatal(err)
		}
	}
	last := int64(1 << 62)
	for n := 0; ; n++ {
		behind, err := r.Behind()
		if err != nil {
			t.Fatal(err)
		}
		left := int64(entries+1-n) * size
		if passed := r.Passed(); passed < int64(n-1)*size || passed > int64(n)*(size+200) {
			t.Errorf("%d bytes passed with %d records", passed, n)
		}
		if behind > last || behind < left-2*size || behind > left+left/4+12<<10 {
			t.Errorf("%d bytes behind with %d records to come, %d before", behind, entries+1-n, last)
		}
		last = behind
		if _, ok, err := r.Next(l.Last()); err != nil {
			t.Fatal(err)
		} else if !ok {
			break
		}
	}
}
