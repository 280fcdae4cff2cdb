package party_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// everyCall makes one call of each kind and hands over its error.
func everyCall(ctx context.Context, db *party.DB, check func(name string, err error)) {
	k, v := []byte("k"), []byte("1")
	_, err := db.Get(ctx, k)
	check("Get", err)
	_, err = db.GetMany(ctx, [][]byte{k})
	check("GetMany", err)
	_, err = db.Has(ctx, k)
	check("Has", err)
	check("Set", db.Set(ctx, k, v, nil))
	check("Delete", db.Delete(ctx, k, nil))
	check("DeleteRange", db.DeleteRange(ctx, k, v, nil))
	check("Merge", db.Merge(ctx, k, v, nil))
	var b pebble.Batch
	_ = b.Set(k, v, nil)
	_, err = db.Apply(ctx, &b, nil)
	check("Apply", err)
	_, err = db.CompareAndSwap(ctx, k, nil, v, nil)
	check("CompareAndSwap", err)
	it, err := db.NewIter(ctx, nil)
	if err == nil {
		it.First()
		err = it.Close()
	}
	check("NewIter", err)
	_, err = db.Status(ctx)
	check("Status", err)
	check("Resign", db.Resign(ctx))
}

func TestDB_ClosedTwice(t *testing.T) {
	dir := newDir(t)
	leader, follower := open(t, dir, nil), open(t, dir, nil)
	for name, db := range map[string]*party.DB{"follower": follower, "leader": leader} {
		must(t, db.Close())
		for range 2 {
			want(t, db.Close(), party.ErrClosed)
		}
		everyCall(within(t), db, func(call string, err error) {
			if err == nil {
				t.Errorf("%s: %s worked after Close", name, call)
			} else {
				want(t, err, party.ErrClosed)
			}
		})
	}
}

// TestDB_CloseEndsCalls: calls under way while the handle closes are done or
// fail with ErrClosed; none hangs.
func TestDB_CloseEndsCalls(t *testing.T) {
	for round := range 6 {
		dir := newDir(t)
		dbs := []*party.DB{open(t, dir, nil), open(t, dir, nil)}
		ended := make(chan error, 16)
		begun := make(chan struct{}, 16)
		for i := range 16 {
			db := dbs[i%2]
			go func() {
				for n := 0; ; n++ {
					if err := db.Set(within(t), fmt.Append(nil, i), nil, nil); err != nil {
						ended <- err
						return
					}
					if n == 1 {
						begun <- struct{}{}
					}
				}
			}()
		}
		for range 16 {
			receive(t, "a writer to begin", begun)
		}
		must(t, dbs[round%2].Close())
		must(t, dbs[1-round%2].Close())
		for range 16 {
			want(t, receive(t, "a call to end", ended), party.ErrClosed)
		}
	}
}

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
