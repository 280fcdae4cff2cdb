package party

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"
)

// cursorPatience is the time between two attempts to own a name.
const cursorPatience = 100 * time.Millisecond

// own returns the cursor of a name once nobody else has it.
func (db *DB) own(ctx context.Context, name string) (*cursor, error) {
	if len(name) > MaxCursorName {
		return nil, fmt.Errorf("%w: the name of a subscription has %d bytes, the limit is %d", ErrTooLarge, len(name), MaxCursorName)
	}
	folder := db.path("cursors")
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	for {
		lock, ok, err := tryLock(db.cursorLock(name))
		if err != nil {
			return nil, err
		}
		if ok {
			return &cursor{name: name, lock: lock, turn: make(chan struct{}, 1)}, nil
		}
		// The kernel frees it when its owner dies, and tells nobody.
		pause(ctx, cursorPatience)
		select {
		case <-db.ended:
			return nil, ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: another subscription has the name %q", err, name)
		}
	}
}

// cursorLock returns the path of the lock whose holder owns a name.
func (db *DB) cursorLock(name string) string {
	sum := sha256.Sum256([]byte(name))
	return db.path("cursors/" + hex.EncodeToString(sum[:16]) + ".lock")
}

// sweepCursor removes the lock file of a name that is no more, unless somebody has
// it. Only its holder removes it, and who took the lock of a file that was removed
// meanwhile finds that out (tryLock); so no two own a name. What a crash, or a
// system that removes no open file, leaves behind is an empty file.
func (db *DB) sweepCursor(name string) {
	path := db.cursorLock(name)
	if _, err := os.Stat(path); err != nil {
		return
	}
	if lock, ok, err := tryLock(path); err == nil && ok {
		_ = os.Remove(path)
		_ = lock.unlock()
	}
}
