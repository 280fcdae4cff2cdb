//go:build !windows

package party

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isLocked tells that Pebble's lock is held by somebody, here or in another
// process.
func isLocked(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) || heldHere(err)
}
