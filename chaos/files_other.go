//go:build !linux

package chaos

import "errors"

// canStarve: the number of files that a process may have open can be changed.
const canStarve = false

func starve(int) error { return errors.ErrUnsupported }
func feed() error      { return errors.ErrUnsupported }
