//go:build !linux

package party

import "time"

// briefly waits for d, a part of a millisecond, between two looks at a lock: nothing
// tells when that becomes free.
func briefly(d time.Duration) { time.Sleep(d) }
