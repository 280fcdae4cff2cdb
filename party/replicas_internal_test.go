package party

import (
	"context"
	"errors"
	"testing"
)

// A caller who gives up says nothing of the replica.
func TestReplicas_OneIsKeptWhenACallerGivesUp(t *testing.T) {
	ctx, cancel := context30(t)
	defer cancel()
	db, err := Open(ctx, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := db.NewSnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	for range 100 { // where it finds out differs
		if s, err := db.replicas.snapshot(ended); err == nil {
			err = s.Close()
			if err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if db.replicas.current != s.replica {
			t.Fatal("the replica was given up")
		}
	}
}
