package party

import (
	"context"
	"testing"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// Internal: replicas are revoked as they are made, as leaders do that find less log
// than there was. The caller has a snapshot all the same.
func TestReplicas_SnapshotOutlivesRevocations(t *testing.T) {
	ctx, db := openHere(t, t.TempDir())
	const times = viewTries + 2
	made := 0
	db.replicas.checkpoint = func(ctx context.Context, id string) (string, error) {
		path, err := db.getCheckpoint(ctx, id)
		if made++; err == nil && made <= times {
			err = snapshot.Revoke(ctx, db.path("replicas"))
		}
		return path, err
	}
	s, err := db.NewSnapshot(ctx)
	if err != nil || made != times+1 {
		t.Fatalf("after %d checkpoints: %v", made, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
