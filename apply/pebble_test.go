//go:build !race

package apply_test

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Plain Pebble, without anything of ours, keeps a promise that it breaks when it is
// built with -race or the tag invariants (v2.1.7, about two runs in three): what a
// DeleteRange from the empty key removed stays removed over a compaction. Those
// builds wrap some iterators of tombstones in keyspan.invalidatingIter, which copies an
// empty start as nil; keyspanimpl.MergingIter.Next takes a nil start for the end, and
// the tombstones behind the first are left out of the table that the compaction writes.
// So tests of ours that run with -race begin such ranges at "\x00". This one says that
// nobody else has to.
func TestPebble_DeletesFromTheEmptyKey(t *testing.T) {
	for range 20 {
		db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true, Logger: silent{}})
		must(t, err)
		must(t, db.Set([]byte("z"), nil, pebble.NoSync))
		must(t, db.Flush())
		must(t, db.Compact(context.Background(), []byte("a"), []byte("zz"), false))
		must(t, db.DeleteRange(nil, []byte("b"), pebble.NoSync))
		for _, k := range []string{"a", "b", "c"} {
			must(t, db.Set([]byte(k), nil, pebble.NoSync))
		}
		must(t, db.Flush())
		must(t, db.DeleteRange(nil, []byte("d"), pebble.NoSync)) // newer than those keys, in a table of its own
		must(t, db.Flush())
		must(t, db.Compact(context.Background(), []byte("a"), []byte("zz"), false))
		it, err := db.NewIter(nil)
		must(t, err)
		if !it.First() || string(it.Key()) != "z" {
			t.Errorf("first key %q", it.Key())
		}
		must(t, it.Close())
		must(t, db.Close())
	}
}
