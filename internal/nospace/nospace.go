// Package nospace tells a full disk from one that is broken: what failed for want of room succeeds later.
package nospace

import "github.com/cockroachdb/pebble/v2/vfs"

// Is tells whether err is of a full disk, or a quota that is used up.
func Is(err error) bool { return vfs.IsNoSpaceError(err) || isQuota(err) }
