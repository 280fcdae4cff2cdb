package snapshot_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// origin is what a leader has open, for replicas in the same process.
type origin struct {
	t           testing.TB
	dir         string
	m           *apply.Machine
	log         *eventlog.Log
	word        *eventlog.Commit
	g           apply.Group
	number      uint64
	checkpoints uint64
	o           snapshot.ReplicaOptions
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func newOrigin(t testing.TB) *origin {
	t.Helper()
	o := &origin{t: t, dir: t.TempDir()}
	po := &pebble.Options{FS: vfs.Default, Logger: silent{}}
	must(t, os.Mkdir(filepath.Join(o.dir, "party"), 0o700))
	lock, err := pebble.LockDirectory(o.dir, vfs.Default)
	must(t, err)
	o.m, err = apply.Open(o.dir, po, lock, slog.New(slog.DiscardHandler))
	must(t, err)
	path := func(name string) string { return filepath.Join(o.dir, "party", name) }
	o.log, err = eventlog.Open(path("log"), eventlog.Options{FS: vfs.Default, SegmentBytes: 64 << 10, ChunkBytes: 4 << 10})
	must(t, err)
	err = o.m.Recover(o.log)
	must(t, err)
	must(t, o.m.CatchUp(t.Context()))
	o.word, err = eventlog.OpenCommit(path("commit"), o.log.ID())
	must(t, err)
	t.Cleanup(func() {
		must(t, errors.Join(o.m.Close(false), o.log.Abort(), o.word.Close(), lock.Close()))
		if left := o.replicas(); len(left) > 0 && !t.Failed() {
			t.Errorf("replicas %q are left", left)
		}
	})
	_, seq, err := o.log.StartTerm(log0)
	must(t, err)
	o.word.SetCommitted(seq)
	must(t, o.m.ApplyTerm(seq))
	o.o = snapshot.ReplicaOptions{
		Root: path("replicas"), Log: path("log"), Commit: path("commit"), Pebble: po,
		Logger: slog.New(slog.DiscardHandler),
		Checkpoint: func(_ context.Context, id string) (string, error) {
			o.checkpoints++
			path, err := snapshot.CheckpointPath(path("replicas"), id, o.checkpoints)
			if err != nil {
				return "", err
			}
			return path, o.m.Checkpoint(path)
		},
	}
	return o
}

func (o *origin) set(key, value string) (seq uint64) {
	o.t.Helper()
	return o.write(&apply.Command{Repr: apply.ReprSet([]byte(key), []byte(value))})
}

// cursor makes a cursor that stands at seq.
func (o *origin) cursor(name string, seq uint64) {
	o.t.Helper()
	var c apply.Command
	apply.MoveCursor(&c, name, nil, &seq)
	o.write(&c)
}

func (o *origin) write(c *apply.Command) (seq uint64) {
	o.t.Helper()
	o.number++
	o.m.Begin(&o.g, o.log.Last()+1, log0)
	c.Number, c.Low = o.number, o.number
	binary.LittleEndian.PutUint64(c.Origin[:], 1)
	if a := o.g.Judge(c); a.Outcome != apply.OutcomeDone {
		o.t.Fatalf("%+v", a)
	}
	_, err := o.log.Append(o.g.Entries(), false)
	must(o.t, err)
	o.word.SetCommitted(o.log.Last())
	must(o.t, o.m.Apply(&o.g))
	return o.log.Last()
}

// retain lets go of all log that recovery does not need.
func (o *origin) retain() {
	o.t.Helper()
	must(o.t, o.m.Flush(nil))
	durable, err := o.m.Durable()
	must(o.t, err)
	must(o.t, o.log.Retain(eventlog.Retention{MaxBytes: 1}, durable))
}

func (o *origin) replicas() (names []string) {
	o.t.Helper()
	entries, err := os.ReadDir(o.o.Root)
	if !errors.Is(err, os.ErrNotExist) {
		must(o.t, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (o *origin) replica() *snapshot.Replica {
	o.t.Helper()
	r, err := snapshot.OpenReplica(o.t.Context(), o.o)
	must(o.t, err)
	o.t.Cleanup(func() { must(o.t, r.Close()) })
	return r
}

func (o *origin) see(r *snapshot.Replica, key, value string) {
	o.t.Helper()
	v, err := r.View(o.t.Context(), 0)
	must(o.t, err)
	got, err := v.Get(nil, []byte(key))
	if err != nil || string(got) != value || v.Seq() != o.log.Last() {
		o.t.Fatalf("at %d key %s is %.40q, %v; want %.40q at %d", v.Seq(), key, got, err, value, o.log.Last())
	}
	v.Close()
}

func (o *origin) see2(r *snapshot.Replica, n int) {
	o.t.Helper()
	for i := range n {
		o.set("k", fmt.Sprint(i))
		o.see(r, "k", fmt.Sprint(i))
	}
}
