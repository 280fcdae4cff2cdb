package apply

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Internal: which of its invariants a broken Pebble finds violated as it is closed is a
// matter of luck. Here it finds that it was closed before.
func TestStore_CloseEndsIfABrokenPebblePanics(t *testing.T) {
	fs := vfs.NewMem()
	lock, err := pebble.LockDirectory("", fs)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	m, err := Open("", &pebble.Options{FS: fs}, lock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the disk is broken")
	m.store.fail(broken)
	closed := make(chan error, 1)
	go func() { closed <- m.store.close() }()
	select {
	case err := <-closed:
		if !errors.Is(err, ErrFenced) {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close does not return")
	}
	if _, err := m.store.fs.Create("000099.sst", ""); !errors.Is(err, ErrFenced) {
		t.Errorf("the files of a Pebble that panicked can be written: %v", err)
	}
}
