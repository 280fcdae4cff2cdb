package party_test

import (
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// roomFS has a disk that can be said to be full.
type roomFS struct {
	vfs.FS
	full atomic.Bool
}

func (f *roomFS) Unwrap() vfs.FS { return f.FS }

func (f *roomFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := f.FS.GetDiskUsage(path)
	if f.full.Load() {
		u.AvailBytes = 0
	}
	return u, err
}

// TestDB_CloseTellsThatTheStateIsNotComplete: the leader was killed, and the last
// handle cannot do in its place what plain Pebble needs.
func TestDB_CloseTellsThatTheStateIsNotComplete(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	fs := &roomFS{FS: vfs.Default}
	db, err := party.Open(within(t), dir, &party.Options{Pebble: &pebble.Options{FS: fs, Logger: silent{}}})
	must(t, err)
	set(t, db, "k", "v")
	fs.full.Store(true)
	leader.kill()
	want(t, db.Close(), party.ErrDiskFull)
	fs.full.Store(false)
	again := open(t, dir, nil)
	expect(t, again, "k", "v")
}
