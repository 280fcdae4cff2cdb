package party_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// An iterator of the leader's own process outlives a Pebble that breaks under it,
// whether that is closed then or given up, and goes on at the next leader.
func TestIterator_OutlivesABrokenPebble(t *testing.T) {
	if !party.InOwnProcess(t) {
		return
	}
	const keys = 6000
	key := func(i int) []byte { return fmt.Appendf(nil, "k%05d", i) }
	// Small tables, more than Pebble keeps open.
	options := func(fs *faultFS) *party.Options {
		o := on(fs)
		o.Pebble.MemTableSize = 512 << 10
		o.Pebble.FlushSplitBytes = 8 << 10
		o.Pebble.MaxOpenFiles = 1
		for i := range o.Pebble.TargetFileSizes {
			o.Pebble.TargetFileSizes[i] = 24 << 10
		}
		return o
	}
	for _, op := range []string{"sync", "write"} { // what was begun as Pebble opened, or a flush
		t.Run(op+" of the manifest fails", func(t *testing.T) {
			dir := newDirFor(t, options(newFaultFS()).Pebble)
			before := open(t, dir, options(newFaultFS()))
			rng := rand.New(rand.NewPCG(1, 2))
			for i := 0; i < keys; i += 300 {
				var b pebble.Batch
				for j := range 300 {
					noise := make([]byte, 1000)
					for k := range noise {
						noise[k] = byte(rng.Uint32())
					}
					must(t, b.Set(key(i+j), noise, nil))
				}
				_, err := before.Apply(within(t), &b, pebble.NoSync)
				must(t, err)
			}
			must(t, before.Close())

			broken := errors.New("the disk is broken")
			looking := make(chan struct{})
			fs := newFaultFS()
			fault := func(did, path string) error {
				if !isManifest(path) || !strings.HasPrefix(did, op) {
					return nil
				}
				<-looking
				fs.set(nil)
				return broken
			}
			if op == "sync" {
				fs.set(fault)
			}
			causes := make(chan error, 100)
			o := options(fs)
			o.Events.RoleChanged = func(r party.RoleChange) {
				if r.Cause != nil {
					causes <- r.Cause
				}
			}
			db := open(t, dir, o)
			leads(t, db)
			it, err := db.NewIter(within(t), nil)
			must(t, err)
			if !it.First() || string(it.Key()) != string(key(0)) {
				t.Fatalf("first %q, %v", it.Key(), it.Error())
			}
			fs.set(fault)
			close(looking)
			tables := func() []string {
				paths, err := filepath.Glob(filepath.Join(dir, "*.sst"))
				must(t, err)
				return paths
			}
			old := tables()
			write := func() { must(t, db.Set(within(t), []byte("z"), make([]byte, 64<<10), pebble.NoSync)) }
			until(t, "the leader steps down", func() bool {
				write()
				select {
				case cause := <-causes:
					want(t, cause, broken)
					return true
				default:
					return false
				}
			})
			// The next leader has other keys, and removes the tables that the iterator was on.
			must(t, db.DeleteRange(within(t), key(1), key(keys), nil))
			set(t, db, "k9", "new")
			until(t, "most old tables are removed", func() bool {
				write()
				now := tables()
				return len(old)-len(slices.DeleteFunc(slices.Clone(old), func(p string) bool { return slices.Contains(now, p) })) < 8
			})
			var got []string
			for it.Next() {
				got = append(got, string(it.Key()))
			}
			if !slices.Equal(got, []string{"k9", "z"}) {
				t.Errorf("behind the first: %d keys, %.5q, %v", len(got), got, it.Error())
			}
			must(t, it.Close())
		})
	}
}
