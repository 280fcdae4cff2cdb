//go:build !linux

package chaos

import "time"

// now is in nanoseconds since a moment that is the same for all processes.
func now() int64 { return time.Now().UnixNano() }
