package party_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// replay is an empty database that the log is applied to from its start.
type replay struct {
	r  *eventlog.Reader
	db *pebble.DB
}

func newReplay(t testing.TB, dir string, o *pebble.Options) *replay {
	t.Helper()
	r, err := eventlog.OpenReader(vfs.Default, filepath.Join(dir, "party", "log"), 1)
	must(t, err)
	o = o.Clone()
	o.FS, o.Logger = vfs.NewMem(), silent{}
	db, err := pebble.Open("", o)
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(r.Close(), db.Close())) })
	return &replay{r, db}
}

// upTo returns the keys at seq, which must not be below that of the call before.
func (r *replay) upTo(t testing.TB, seq uint64) map[string]string {
	t.Helper()
	for {
		rec, ok, err := r.r.Next(seq)
		must(t, err)
		if !ok {
			return keysOf(t, r.db)
		}
		if rec.Kind != eventlog.KindEntry {
			continue
		}
		e, err := apply.DecodeEntry(rec.Payload)
		must(t, err)
		var b pebble.Batch
		must(t, b.SetRepr(bytes.Clone(e.Repr)))
		must(t, r.db.Apply(&b, pebble.NoSync))
	}
}

// eachEntry calls f with every entry in the files of the log.
func eachEntry(t testing.TB, dir string, f func(seq uint64, e apply.Entry)) {
	t.Helper()
	r, err := eventlog.OpenReader(vfs.Default, filepath.Join(dir, "party", "log"), 1)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	for {
		rec, ok, err := r.Next(1 << 61)
		must(t, err)
		if !ok {
			return
		}
		if rec.Kind != eventlog.KindEntry {
			continue
		}
		e, err := apply.DecodeEntry(rec.Payload)
		must(t, err)
		f(rec.Seq, e)
	}
}
