package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

// A process leads before Pebble has all of the log. When that cannot be replayed its
// callers get to know why, instead of waiting while one term follows the other.
func TestDB_SaysThatTheLogCannotBeReplayed(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, nil)
	must(t, db.Set(within(t), []byte("k"), []byte("v"), pebble.Sync))
	closeDB(t, db)
	bad := appendUnappliable(t, filepath.Join(dir, "party", "log"))

	db, err := party.Open(within(t), dir, nil)
	if err == nil {
		defer func() { _ = db.Close() }() // which cannot complete the state either
		_, err = db.Get(within(t), []byte("k"))
	}
	if !errors.Is(err, party.ErrUnsupported) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", bad)) {
		t.Errorf("the error is %v", err)
	}
}

// appendUnappliable appends a copy of the last entry of a log, with an operation that
// this program does not know, as a newer one might.
func appendUnappliable(t *testing.T, dir string) (seq uint64) {
	t.Helper()
	log, err := eventlog.Open(dir, eventlog.Options{})
	must(t, err)
	r, err := eventlog.OpenReader(vfs.Default, dir, log.First())
	must(t, err)
	var entry []byte
	for {
		rec, ok, err := r.Next(log.Last())
		must(t, err)
		if !ok {
			break
		}
		if rec.Kind == eventlog.KindEntry {
			entry = bytes.Clone(rec.Payload)
		}
	}
	must(t, r.Close())
	e, err := apply.DecodeEntry(entry)
	must(t, err)
	entry[len(entry)-len(e.Repr)+12] = 0xee // the kind of the first operation
	_, _, err = log.StartTerm(time.Now())
	must(t, err)
	seq, err = log.Append([][]byte{entry}, true)
	must(t, err)
	must(t, log.Abort())
	return seq
}
