//go:build !windows

package embednats

// The ways to a short path of a folder.
var ByDescriptor, ByLink = byDescriptor, func(dir string) (string, func(), error) { return byLink(dir, sockName) }
