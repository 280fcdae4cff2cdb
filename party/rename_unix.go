//go:build !windows

package party

import (
	"errors"
	"os"
)

func renameOver(from, to string) error { return os.Rename(from, to) }

// removeFile removes path; that it does not exist is no error.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes the entries of a folder durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
