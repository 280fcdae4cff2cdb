package party_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// BenchmarkSnapshot measures snapshots of a follower with 100,000 keys of 116
// bytes, beside Pebble in this process with the same keys: for the next snapshot
// its NewSnapshot, or a write before it; for the first one of a handle the Open of
// that, and in a row of its own a checkpoint and opening it. Another process leads.
//
//	go test ./party -run '^$' -bench Snapshot
func BenchmarkSnapshot(b *testing.B) {
	plain := floorPebble(b)
	r := newRigOn(b, plain) // the same tables
	ctx := b.Context()
	open := func() *party.DB {
		db, err := party.Open(ctx, r.dir, nil)
		must(b, err)
		return db
	}
	snap := func(db *party.DB) *party.Snapshot {
		s, err := db.NewSnapshot(ctx)
		must(b, err)
		return s
	}
	b.Run("first", func(b *testing.B) {
		var dbs []*party.DB
		pairs(b, func(int) {
			snap(dbs[len(dbs)-1])
		}, func(i int) {
			dbs = append(dbs, open())
			if i > 0 {
				must(b, dbs[i-1].Close())
			}
		})
		must(b, dbs[len(dbs)-1].Close())
	})
	b.Run("first-floor", func(b *testing.B) {
		root := b.TempDir()
		for i := 0; b.Loop(); i++ {
			dir := filepath.Join(root, strconv.Itoa(i))
			must(b, plain.Checkpoint(dir))
			db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
			must(b, err)
			b.StopTimer()
			must(b, db.Close())
			must(b, os.RemoveAll(dir))
			b.StartTimer()
		}
	})
	held := snap(r.db)
	defer held.Close()
	b.Run("next", func(b *testing.B) {
		pairs(b, func(int) { must(b, snap(r.db).Close()) }, func(int) { must(b, plain.NewSnapshot().Close()) })
	})
	b.Run("next-after-write", func(b *testing.B) {
		value := make([]byte, 100)
		pairs(b, func(i int) {
			must(b, snap(r.db).Close())
		}, func(i int) {
			must(b, r.db.Set(ctx, benchKey(i%benchKeys), value, pebble.NoSync))
		})
	})
	b.Run("get", func(b *testing.B) {
		pairs(b, func(i int) {
			_, err := held.Get(ctx, benchKey(i%benchKeys))
			must(b, err)
		}, func(i int) {
			_, c, err := plain.Get(benchKey(i % benchKeys))
			must(b, err)
			must(b, c.Close())
		})
	})
	b.Run("iterate", func(b *testing.B) { iterates(b, held.NewIter, plain) })
	b.Run("backup", func(b *testing.B) {
		pairs(b, func(int) {
			_, err := r.db.Backup(ctx, io.Discard)
			must(b, err)
		}, func(int) {
			it, err := plain.NewIter(nil)
			must(b, err)
			h := sha256.New()
			for ok := it.First(); ok; ok = it.Next() {
				h.Write(it.Key())
				h.Write(it.Value())
			}
			must(b, it.Close())
		})
	})
	b.Run("restore", func(b *testing.B) {
		var stream bytes.Buffer
		_, err := r.db.Backup(ctx, &stream)
		must(b, err)
		root := b.TempDir()
		for i := 0; b.Loop(); i++ {
			_, err := party.Restore(ctx, bytes.NewReader(stream.Bytes()), filepath.Join(root, strconv.Itoa(i)))
			must(b, err)
		}
		b.SetBytes(int64(stream.Len()))
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			_, err := party.Verify(ctx, r.dir)
			must(b, err)
		}
	})
}

// iterates measures to go over all keys and values with an iterator of ours, beside
// one of Pebble's.
func iterates(b *testing.B, newIter func(context.Context, *party.IterOptions) (*party.Iterator, error), plain *pebble.DB) {
	pairs(b, func(int) {
		it, err := newIter(b.Context(), nil)
		must(b, err)
		n := 0
		for k, v := range it.All() {
			n += len(k) + len(v)
		}
		must(b, it.Close())
		if n != benchKeys*116 {
			b.Fatal(n)
		}
	}, func(int) {
		it, err := plain.NewIter(nil)
		must(b, err)
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n += len(it.Key()) + len(it.Value())
		}
		must(b, it.Close())
		if n != benchKeys*116 {
			b.Fatal(n)
		}
	})
}

func floorPebble(b *testing.B) *pebble.DB {
	db, err := pebble.Open(b.TempDir(), &pebble.Options{Logger: quiet{}, CacheSize: 64 << 20})
	must(b, err)
	b.Cleanup(func() { must(b, db.Close()) })
	value := make([]byte, 100)
	for i := range benchKeys {
		must(b, db.Set(benchKey(i), value, pebble.NoSync))
	}
	must(b, db.Flush())
	must(b, db.Compact(b.Context(), []byte{}, bytes.Repeat([]byte{0xff}, 17), false)) // one sorted run, now and later
	return db
}
