//go:build !linux

package party

import "time"

// briefly waits for d, a part of a millisecond.
func briefly(d time.Duration) { time.Sleep(d) }
