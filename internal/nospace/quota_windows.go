package nospace

import (
	"errors"

	"golang.org/x/sys/windows"
)

func isQuota(err error) bool { return errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED) }
