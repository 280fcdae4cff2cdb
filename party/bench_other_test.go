//go:build !linux

package party_test

import "os"

func syncData(f *os.File) error { return f.Sync() }
