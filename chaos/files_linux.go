package chaos

import (
	"os"

	"golang.org/x/sys/unix"
)

// canStarve: the number of files that a process may have open can be changed.
const canStarve = true

// starve lets this process open no more than spare files more than it has open.
func starve(spare int) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	return limitFiles(func(l *unix.Rlimit) { l.Cur = min(uint64(len(open)+spare), l.Max) })
}

// feed ends starve.
func feed() error { return limitFiles(func(l *unix.Rlimit) { l.Cur = l.Max }) }

func limitFiles(change func(*unix.Rlimit)) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	change(&l)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}
