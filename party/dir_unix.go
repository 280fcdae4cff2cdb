//go:build !windows

package party

import (
	"fmt"
	"os"
	"syscall"
)

// directoryID tells a directory from all others that there are at the time, whatever they
// are called: it stays with the directory when that is renamed, and a copy has another.
func directoryID(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t) // as package os documents
	return fmt.Sprintf("%x:%x", st.Dev, st.Ino), nil
}
