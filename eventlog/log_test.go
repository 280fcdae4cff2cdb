package eventlog_test

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func TestLog_RoundTripOverSegmentsAndReopening(t *testing.T) {
	fs := memFS(t)
	var want []rec
	term, n := uint64(0), 0
	for range 3 {
		l := open(t, small(fs))
		if l.Term() != term || l.Last() != uint64(len(want)) || l.Durable() > l.Last() {
			t.Fatalf("opened with term %d, last %d, durable %d; want term %d, last %d", l.Term(), l.Last(), l.Durable(), term, len(want))
		}
		tm, seq, err := l.StartTerm(time.Unix(int64(n), 5))
		must(t, err)
		term++
		want = append(want, rec{uint64(len(want) + 1), term, eventlog.KindTerm, ""})
		if tm != term || seq != uint64(len(want)) {
			t.Fatalf("term %d at %d, want %d at %d", tm, seq, term, len(want))
		}
		for i := range 60 {
			group := []string{entry(n, i*7), "", entry(n+1, 1)}
			if first := add(t, l, i%3 == 0, group...); first != uint64(len(want)+1) {
				t.Fatalf("appended at %d, want %d", first, len(want)+1)
			}
			for _, e := range group {
				want = append(want, rec{uint64(len(want) + 1), term, eventlog.KindEntry, e})
			}
			n += 2
		}
		if l.First() != 1 || l.Last() != uint64(len(want)) {
			t.Fatalf("first %d, last %d", l.First(), l.Last())
		}
		must(t, l.Close())
	}
	names, err := fs.List(logDir)
	must(t, err)
	if len(names) < 10 {
		t.Fatalf("only %d segments", len(names))
	}
	for from := range uint64(len(want)) {
		if got := mustRead(t, fs, from+1); !reflect.DeepEqual(got, want[from:]) {
			t.Fatalf("read from %d: got %d records, want %d", from+1, len(got), len(want[from:]))
		}
	}
	if got := mustRead(t, fs, uint64(len(want)+1)); len(got) != 0 {
		t.Fatalf("read %v behind the end", got)
	}
	if got, err := read(fs, logDir, 0, 10); err != nil || len(got) != 10 {
		t.Fatalf("read %d records with limit 10, %v", len(got), err)
	}
}

func TestLog_EntryLargerThanSegment(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	big := []string{entry(1, 10), entry(2, 9000), entry(3, 10), entry(4, 70000), entry(5, 300000), entry(6, 5)}
	for _, e := range big {
		add(t, l, true, e)
	}
	add(t, l, false, big...)
	must(t, l.Close())
	got := entries(mustRead(t, fs, 0))
	for i, e := range append(big, big...) {
		if got[uint64(i+2)] != e {
			t.Fatalf("entry %d is not what was appended", i+2)
		}
	}
	l = open(t, small(fs))
	if l.Last() != 13 {
		t.Fatalf("last is %d", l.Last())
	}
}

func TestLog_StartsAfter(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.After = 41
	l := open(t, o)
	if l.First() != 42 || l.Last() != 41 {
		t.Fatalf("empty log: first %d, last %d", l.First(), l.Last())
	}
	_, seq, err := l.StartTerm(time.Unix(1, 0))
	must(t, err)
	if seq != 42 {
		t.Fatalf("term record at %d", seq)
	}
	must(t, l.Close())
	o.After = 7 // means nothing now
	if l = open(t, o); l.First() != 42 || l.Last() != 42 {
		t.Fatalf("first %d, last %d", l.First(), l.Last())
	}
	var ce *eventlog.CompactedError
	if _, err := eventlog.OpenReader(fs, logDir, 41); !errors.As(err, &ce) || ce.First != 42 || !errors.Is(err, eventlog.ErrCompacted) {
		t.Fatalf("reader before the first record: %v", err)
	}
}

func TestLog_Identity(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.ID = eventlog.ID{}
	l := open(t, o)
	id := l.ID()
	if id == (eventlog.ID{}) {
		t.Fatal("no id")
	}
	must(t, l.Close())
	if l = open(t, o); l.ID() != id {
		t.Fatalf("id %v, want %v", l.ID(), id)
	}
	must(t, l.Close())
	o.ID = testID
	_, err := eventlog.Open(logDir, o)
	if !errors.Is(err, eventlog.ErrForeign) || !strings.Contains(err.Error(), id.String()) || !strings.Contains(err.Error(), testID.String()) {
		t.Fatalf("opened for another database: %v", err)
	}
	path := lastFile(t, fs)
	b := contents(t, fs, path)
	b[8] = 9
	put(t, fs, path, b)
	if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrVersion) || !strings.Contains(err.Error(), "version 9") {
		t.Fatalf("opened a newer version: %v", err)
	}
	put(t, fs, path, []byte(strings.Repeat("something else ", 30)))
	if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrForeign) {
		t.Fatalf("opened a foreign file: %v", err)
	}
}

func TestLog_RefusesWithoutEffect(t *testing.T) {
	fs := memFS(t)
	l := open(t, small(fs))
	if _, err := l.Append([][]byte{nil}, true); !errors.Is(err, eventlog.ErrNoTerm) {
		t.Fatalf("append before a term: %v", err)
	}
	_, _, err := l.StartTerm(time.Unix(1, 0))
	must(t, err)
	if _, err := l.Append([][]byte{{1}, make([]byte, eventlog.MaxEntry+1)}, true); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Fatalf("too large an entry: %v", err)
	}
	if l.Last() != 1 {
		t.Fatalf("last is %d", l.Last())
	}
	must(t, l.Close())
	must(t, l.Close())
	must(t, l.Abort())
	_, aerr := l.Append([][]byte{{1}}, false)
	_, _, terr := l.StartTerm(time.Unix(1, 0))
	for _, err := range []error{aerr, terr, l.Sync(), l.Retain(eventlog.Retention{MaxBytes: 1}, 100)} {
		if !errors.Is(err, eventlog.ErrClosed) {
			t.Fatalf("after Close: %v", err)
		}
	}
	bad := eventlog.Options{SegmentBytes: -1, ChunkBytes: -1, After: 1 << 63}
	if _, err := eventlog.Open(t.TempDir(), bad); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Fatalf("want three faults, got %v", err)
	}
}

func TestLog_NumbersSkipOnlyAfterUnsyncedCrash(t *testing.T) {
	for _, c := range []struct {
		name string
		sync bool
		end  func(*eventlog.Log) error
		want uint64
	}{
		{"synced, closed", true, (*eventlog.Log).Close, 5},
		{"synced, killed", true, (*eventlog.Log).Abort, 5},
		{"unsynced, closed", false, (*eventlog.Log).Close, 5},
		{"unsynced, killed", false, (*eventlog.Log).Abort, 10}, // reserved with entry 2 for 8 more
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memFS(t)
			l := lead(t, small(fs))
			for i := range 3 {
				add(t, l, c.sync, entry(i, 3))
			}
			must(t, c.end(l))
			for range 2 { // opened without a term: nothing may change
				must(t, open(t, small(fs)).Close())
			}
			l = lead(t, small(fs))
			if l.Last() != c.want {
				t.Fatalf("term record at %d, want %d", l.Last(), c.want)
			}
			for from := uint64(5); from <= c.want; from++ { // in the gap too
				if got := mustRead(t, fs, from); len(got) != 1 || got[0].seq != c.want {
					t.Fatalf("read from %d: %v", from, got)
				}
			}
		})
	}
}

func TestLog_SyncRunsBesideAppends(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.ReserveSeqs = 100
	l := lead(t, o)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				last := l.Last()
				if err := l.Sync(); err != nil || l.Durable() < last {
					t.Errorf("synced to %d, wanted %d: %v", l.Durable(), last, err)
					return
				}
				_, _ = l.First(), l.Size()
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := l.Retain(eventlog.Retention{MaxBytes: 10000}, l.Last()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 2000 {
		add(t, l, i%50 == 0, entry(i, i%300))
	}
	close(stop)
	wg.Wait()
	must(t, l.Close())
	got := entries(mustRead(t, fs, 0))
	for seq, e := range got {
		if i := int(seq) - 2; e != entry(i, i%300) {
			t.Fatalf("entry %d is wrong", seq)
		}
	}
}
