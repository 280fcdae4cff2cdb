//go:build !windows

package party

import "os"

func renameOver(from, to string) error { return os.Rename(from, to) }
