package party_test

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

func TestOpen_ReportsAllInvalidOptions(t *testing.T) {
	dir := t.TempDir()
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	must(t, err)
	defer func() { must(t, lock.Close()) }()
	_, err = party.Open(within(t), dir, &party.Options{
		Pebble:    &pebble.Options{ReadOnly: true, ErrorIfExists: true, FS: vfs.NewMem(), Lock: lock},
		Retention: party.Retention{MaxAge: -1},
	})
	if err == nil {
		t.Fatal("invalid options were accepted")
	}
	for _, name := range []string{"ReadOnly", "ErrorIfExists", "FS", "Lock", "MaxAge"} {
		if !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

func TestOpen_LeavesOptionsAlone(t *testing.T) {
	o := &party.Options{Pebble: &pebble.Options{}}
	open(t, newDir(t), o)
	if o.Pebble.Comparer != nil || o.Pebble.FS != nil || o.Pebble.Lock != nil || o.Pebble.DisableWAL || o.Logger != nil || o.Retention != (party.Retention{}) {
		t.Errorf("Open wrote to its options: %+v", o)
	}
}
