//go:build !unix

package chaos

import (
	"errors"
	"io/fs"
)

func inodeNumber(fs.FileInfo) (uint64, error) { return 0, errors.ErrUnsupported }

func links(fs.FileInfo) uint64 { return 1 }
