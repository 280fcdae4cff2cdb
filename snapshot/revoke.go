package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// ErrRevoked: a leader has found that the replica may have what the log has not,
// or may look at a commit word that nobody writes.
var ErrRevoked = errors.New("snapshot: replica was revoked")

// revokedName is a file in the folder of a replica, in the form of a commit word
// and mapped as one: term 0 while the replica may be used, 1 once it was revoked.
const revokedName = "revoked"

// Revoke ends the use of all replicas under root, the folder that holds them all:
// when it has returned nil, every read that begins in any process finds that its
// replica was revoked.
//
// A leader calls it before it commits anything, if the commit word is a new one,
// for processes may have the one before mapped, or if the log ends before what
// the word says. A replica that is being opened makes its file before it gets a
// checkpoint and maps the word; so if it is not found here, it gets both as they
// are now.
func Revoke(ctx context.Context, root string) error {
	// What a power cut has left of the others need not be whole.
	_, swept := Sweep(ctx, root)
	entries, err := os.ReadDir(root)
	if err != nil {
		return ignoreNotExist(err)
	}
	for _, e := range entries {
		if !isID(e.Name()) || !e.IsDir() {
			continue // none of ours
		}
		c, err := eventlog.AlterCommit(filepath.Join(root, e.Name(), revokedName))
		if errors.Is(err, os.ErrNotExist) {
			continue // it is being made, or removed
		}
		if err != nil {
			return errors.Join(fmt.Errorf("revoke replica %s: %w", e.Name(), err), swept)
		}
		c.SetTerm(1)
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) isRevoked() bool { return r.revoked.Term() != 0 }
