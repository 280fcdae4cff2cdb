package party

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isLocked tells that Pebble's lock is held by somebody, here or in another
// process.
func isLocked(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) || heldHere(err)
}
