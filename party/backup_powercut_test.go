package party_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// A backup that has what a power cut then took is continued by nothing: what came
// in its place would make a state of it that never was.
func TestDB_BackupSinceWhatAPowerCutTook(t *testing.T) {
	dir := newDir(t)
	p, last := unsynced(t, dir)
	db := open(t, dir, &party.Options{Pebble: &pebble.Options{FS: noRoom{vfs.Default}}})
	var lost bytes.Buffer
	seq, err := db.BackupSince(within(t), &lost, 0)
	must(t, err)
	if seq != last {
		t.Fatalf("backup at %d, want %d", seq, last)
	}
	closeDB(t, db)
	p.kill()
	kept := cutPower(t, dir)
	db = open(t, dir, nil)
	leads(t, db)
	set(t, db, "after", "1")
	for since, ok := range map[uint64]bool{0: true, kept - 1: true, kept: true, kept + 1: false, last: false} {
		var te *party.TruncatedError
		switch _, err := db.BackupSince(within(t), &bytes.Buffer{}, since); {
		case ok && err != nil:
			t.Errorf("since %d: %v", since, err)
		case !ok && (!errors.As(err, &te) || !errors.Is(err, party.ErrTruncated) || te.Last != kept):
			t.Errorf("since %d: %v, want that all after %d was lost", since, err, kept)
		}
	}
	full, seq := backup(t, db) // what the error asks for
	set(t, db, "later", "2")
	inc, upTo := backupSince(t, db, seq)
	to := filepath.Join(t.TempDir(), "db")
	restore(t, full, to, nil, seq)
	restore(t, inc, to, nil, upTo)
	closeDB(t, db)
	sameKeys(t, "restored", plainKeys(t, to, nil), plainKeys(t, dir, nil))
}
