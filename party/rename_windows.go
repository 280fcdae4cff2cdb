package party

import (
	"errors"
	"os"
	"time"
)

// Windows neither renames over nor removes a file that somebody has open. The
// others open ours for microseconds at a time, so it is tried again for a while.

func renameOver(from, to string) error {
	return insist(func() error { return os.Rename(from, to) })
}

// removeFile removes path; that it does not exist is no error.
func removeFile(path string) error {
	return insist(func() error {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

func insist(op func() error) (err error) {
	for range 200 {
		if err = op(); err == nil {
			return nil
		}
		<-time.After(5 * time.Millisecond)
	}
	return err
}

// syncDir does nothing: Windows has no such operation.
func syncDir(string) error { return nil }
