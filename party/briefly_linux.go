package party

import (
	"time"

	"golang.org/x/sys/unix"
)

// briefly waits for d, a part of a millisecond. A timer of Go's takes more than a
// whole one in a process that has nothing else to do: epoll_wait counts in
// milliseconds, and the runtime rounds up (runtime/netpoll_epoll.go).
func briefly(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil) // a signal may cut it short
}
