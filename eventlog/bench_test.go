package eventlog_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func benchLog(b *testing.B, o eventlog.Options) (*eventlog.Log, string) {
	dir := filepath.Join(b.TempDir(), "log")
	l, err := eventlog.Open(dir, o)
	must(b, err)
	b.Cleanup(func() { _ = l.Abort() })
	_, _, err = l.StartTerm(time.Now())
	must(b, err)
	return l, dir
}

// BenchmarkAppend appends groups of 100-byte entries; the floors do with bare files what must be done at least.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
		sync bool
	}{{"sync/1", 1, true}, {"sync/64", 64, true}, {"nosync/1", 1, false}, {"nosync/64", 64, false}} {
		b.Run(c.name, func(b *testing.B) {
			l, _ := benchLog(b, eventlog.Options{})
			group := make([][]byte, c.n)
			for i := range group {
				group[i] = make([]byte, 100)
			}
			b.SetBytes(int64(100 * c.n))
			for b.Loop() {
				if _, err := l.Append(group, c.sync); err != nil {
					b.Fatal(err)
				}
				if l.Size() > 256<<20 {
					must(b, l.Retain(eventlog.Retention{MaxBytes: 64 << 20}, all))
				}
			}
			b.ReportMetric(float64(b.N*c.n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
	floor := func(name string, overwrite bool) {
		b.Run(name, func(b *testing.B) {
			f, err := vfs.Default.OpenReadWrite(filepath.Join(b.TempDir(), "f"), vfs.WriteCategoryUnspecified)
			must(b, err)
			defer f.Close()
			if overwrite {
				_, err = f.WriteAt(make([]byte, 4<<20), 0)
				must(b, err)
				must(b, f.Sync())
			}
			p := make([]byte, 136)
			at := int64(0)
			for b.Loop() {
				if _, err := f.WriteAt(p, at); err != nil {
					b.Fatal(err)
				}
				if err := f.SyncData(); err != nil {
					b.Fatal(err)
				}
				if at += 136; overwrite {
					at %= 4<<20 - 136
				}
			}
		})
	}
	floor("floor/overwrite", true)
	floor("floor/growing", false)
}

func BenchmarkReader(b *testing.B) {
	l, dir := benchLog(b, eventlog.Options{})
	group := make([][]byte, 1000)
	for i := range group {
		group[i] = make([]byte, 100)
	}
	for range 300 {
		_, err := l.Append(group, false)
		must(b, err)
	}
	limit := l.Last()
	b.SetBytes(100)
	var r *eventlog.Reader
	for b.Loop() {
		if r == nil {
			var err error
			r, err = eventlog.OpenReader(nil, dir, 0)
			must(b, err)
		}
		_, ok, err := r.Next(limit)
		must(b, err)
		if !ok {
			must(b, r.Close())
			r = nil
		}
	}
	if r != nil {
		must(b, r.Close())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkReaderTail reads each record just after it was appended.
func BenchmarkReaderTail(b *testing.B) {
	l, dir := benchLog(b, eventlog.Options{})
	r, err := eventlog.OpenReader(nil, dir, 0)
	must(b, err)
	defer r.Close()
	_, _, err = r.Next(1)
	must(b, err)
	group := [][]byte{make([]byte, 100)}
	for b.Loop() {
		seq, err := l.Append(group, false)
		must(b, err)
		if _, ok, err := r.Next(seq); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkOpen opens a log whose last segment is full, as a failover does.
func BenchmarkOpen(b *testing.B) {
	for _, hinted := range []bool{true, false} {
		b.Run(map[bool]string{true: "hinted", false: "unknown"}[hinted], func(b *testing.B) {
			o := eventlog.Options{}
			l, dir := benchLog(b, o)
			group := make([][]byte, 100)
			for i := range group {
				group[i] = make([]byte, 100)
			}
			for l.Size() <= 4<<20 && l.Last() < 30000 {
				_, err := l.Append(group, true)
				must(b, err)
			}
			if hinted {
				o.DurableHint = l.Last()
			}
			must(b, l.Abort())
			entries, err := os.ReadDir(dir)
			must(b, err)
			if len(entries) != 1 {
				b.Fatal("more than one segment")
			}
			for b.Loop() {
				l, err := eventlog.Open(dir, o)
				must(b, err)
				must(b, l.Abort())
			}
		})
	}
}
