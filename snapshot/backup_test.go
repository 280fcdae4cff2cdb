package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// full returns a full backup of o.
func (o *origin) full() []byte {
	o.t.Helper()
	var b bytes.Buffer
	v := o.m.View()
	must(o.t, snapshot.Backup(o.t.Context(), &b, v, pebble.DefaultComparer, pebble.DefaultMerger.Name))
	v.Close()
	return b.Bytes()
}

// since returns an incremental backup of o.
func (o *origin) since(seq uint64) []byte {
	o.t.Helper()
	r, err := eventlog.OpenReader(vfs.Default, o.o.Log, seq+1)
	must(o.t, err)
	var b bytes.Buffer
	h := snapshot.Head{Since: seq, Seq: o.log.Last(), Comparer: pebble.DefaultComparer.Name, Merger: pebble.DefaultMerger.Name}
	must(o.t, snapshot.BackupLog(o.t.Context(), &b, r, h))
	must(o.t, r.Close())
	return b.Bytes()
}

// memory returns a folder in memory if the system has one: tests that restore
// hundreds of times need no disk.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pebbleparty")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func refused(t testing.TB, what string, stream []byte, above string) {
	t.Helper()
	seq, err := snapshot.Restore(t.Context(), bytes.NewReader(stream), filepath.Join(above, "db"), restoreOptions())
	if !errors.Is(err, snapshot.ErrDamaged) {
		t.Fatalf("%s: restored at %d, error %v", what, seq, err)
	}
	nothingIn(t, above)
}

func filledOrigin(t testing.TB) (o *origin, full, incremental []byte) {
	t.Helper()
	o = newOrigin(t)
	rng := rand.New(rand.NewPCG(1, 2))
	some := func(size int) string {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return string(b)
	}
	for i := range 500 {
		o.set(fmt.Sprintf("k%04d", i), some(100))
	}
	o.set("large", some(600<<10))
	full = o.full()
	seq := o.log.Last()
	for i := range 400 {
		o.set(fmt.Sprintf("k%04d", i*2), some(700))
	}
	return o, full, o.since(seq)
}

func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Fatalf("key %.40q is %.40q (there: %t), want %.40q", k, g, ok, v)
		}
	}
}

// user removes our keys.
func user(m map[string]string) map[string]string {
	for k := range m {
		if strings.HasPrefix(k, apply.ReservedPrefix) {
			delete(m, k)
		}
	}
	return m
}

func (o *origin) keys() map[string]string {
	o.t.Helper()
	it, err := o.m.NewIter(nil)
	must(o.t, err)
	m := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		m[string(it.Key())] = string(it.Value())
	}
	must(o.t, it.Close())
	return user(m)
}

func TestBackup_AllOrderings(t *testing.T) {
	for _, ord := range orderings() {
		t.Run(ord.name, func(t *testing.T) {
			m, pairs := filled(t, ord, rand.New(rand.NewPCG(4, 4)))
			v := m.View()
			var b bytes.Buffer
			must(t, snapshot.Backup(t.Context(), &b, v, ord.cmp, pebble.DefaultMerger.Name))
			o := restoreOptions()
			o.Pebble.Comparer = ord.cmp
			if ord.name == "cockroachkvs" {
				o.Pebble.FormatMajorVersion = pebble.FormatNewest
				o.Pebble.KeySchema, o.Pebble.KeySchemas = keySchema()
			}
			dir := filepath.Join(t.TempDir(), "db")
			seq, err := snapshot.Restore(t.Context(), &b, dir, o)
			must(t, err)
			if seq != v.Seq() {
				t.Errorf("at %d, want %d", seq, v.Seq())
			}
			v.Close()
			got, err := apply.OpenReadOnly(dir, o.Pebble, o.Logger)
			must(t, err)
			clean, err := got.Clean()
			must(t, err)
			if got.Applied() != seq || !clean || got.ID() == m.ID() {
				t.Errorf("applied %d, clean %t, id %s, that of the other %s", got.Applied(), clean, got.ID(), m.ID())
			}
			for _, p := range pairs {
				if v, err := got.Get(nil, p.Key); err != nil || !bytes.Equal(v, p.Value) {
					t.Errorf("%q is %.40q, %v", p.Key, v, err)
				}
			}
			must(t, got.Close(false))
		})
	}
}

func TestBackup_WriterFails(t *testing.T) {
	o, full, _ := filledOrigin(t)
	cause := errors.New("no room")
	for _, n := range []int{0, 16, 100, len(full) / 2, len(full) - 1} {
		v := o.m.View()
		err := snapshot.Backup(t.Context(), &limited{n, cause}, v, pebble.DefaultComparer, "")
		v.Close()
		if !errors.Is(err, cause) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

type limited struct {
	n   int
	err error
}

func (l *limited) Write(p []byte) (int, error) {
	if l.n -= len(p); l.n < 0 {
		return 0, l.err
	}
	return len(p), nil
}

func FuzzStream(f *testing.F) {
	o := newOrigin(f)
	f.Add(o.full())
	o.set("k", "v")
	f.Add(o.full())
	f.Add(o.since(1))
	o.cursor("worker", 2)
	o.cursor("indexer", 1)
	f.Add(o.full())
	f.Add(o.since(1))
	f.Add([]byte("PPARTBAK"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		h, err := snapshot.CheckStream(t.Context(), bytes.NewReader(stream))
		if err != nil && !errors.Is(err, snapshot.ErrDamaged) && !errors.Is(err, snapshot.ErrVersion) {
			t.Errorf("%v", err)
		}
		if err == nil && (h.Since > h.Seq || h.Incremental && len(h.Cursors) > 0) {
			t.Errorf("%+v", h)
		}
	})
}
