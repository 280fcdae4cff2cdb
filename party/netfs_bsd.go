//go:build darwin || freebsd

package party

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// networkFS names the network file system that dir is on, "" for a local one.
func networkFS(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	switch name := strings.ToLower(unix.ByteSliceToString(st.Fstypename[:])); name {
	case "nfs", "smbfs", "afpfs", "webdav", "p9fs":
		return name, nil
	}
	return "", nil
}
