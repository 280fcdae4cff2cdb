package party_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

func BenchmarkAdhocReplay(b *testing.B) {
	dir := b.TempDir()
	os.MkdirAll(dir, 0o755)
	open := func() (*pebble.Lock, *apply.Machine, *eventlog.Log) {
		lock, err := pebble.LockDirectory(dir, vfs.Default)
		if err != nil {
			b.Fatal(err)
		}
		m, err := apply.Open(dir, &pebble.Options{Logger: quiet{}}, lock, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		t := time.Now()
		l, err := eventlog.Open(filepath.Join(dir, "log"), eventlog.Options{})
		if err != nil {
			b.Fatal(err)
		}
		fmt.Println("log open", time.Since(t))
		return lock, m, l
	}
	lock, m, l := open()
	if err := m.Recover(l, vfs.Default, filepath.Join(dir, "log")); err != nil {
		b.Fatal(err)
	}
	_, seq, _ := l.StartTerm(time.Now())
	m.ApplyTerm(seq)
	var g apply.Group
	var o apply.Origin
	o[0] = 1
	for i := range 5000 {
		m.Begin(&g, l.Last()+1, time.Now())
		g.Judge(&apply.Command{Origin: o, Number: uint64(i + 1), Low: uint64(i + 1), Repr: apply.ReprSet(benchKey(i), make([]byte, 100))})
		l.Append(g.Entries(), false)
		m.Apply(&g)
	}
	l.Sync()
	m.Close(false)
	l.Abort()
	lock.Close()
	for b.Loop() {
		t := time.Now()
		os.Remove(filepath.Join(dir, "LOCK"))
		lock, m, l := open()
		t1 := time.Now()
		if err := m.Recover(l, vfs.Default, filepath.Join(dir, "log")); err != nil {
			b.Fatal(err)
		}
		fmt.Println("open", t1.Sub(t), "replay", time.Since(t1), l.Last())
		m.Close(false)
		l.Abort()
		lock.Close()
	}
}
