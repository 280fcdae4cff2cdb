package chaos

import "golang.org/x/sys/unix"

// now is in nanoseconds since a moment that is the same for all processes. The
// wall clock would do but for the steps that it is set by.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock is always there
	}
	return t.Nano()
}
