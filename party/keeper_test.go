package party_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// TestLeader_FlushesWhatCameDuringAFlush: what is written while Pebble flushes is
// flushed too, though nothing is written after it; otherwise the next leader
// would have to replay it, and retention to keep it.
func TestLeader_FlushesWhatCameDuringAFlush(t *testing.T) {
	fs := newFaultFS()
	o := on(fs)
	o.Pebble.MemTableSize = 64 << 20 // Pebble itself sees no reason to flush
	o.Retention.MaxBytes = 1
	dir := newDirFor(t, o.Pebble)
	db := open(t, dir, o)
	set(t, db, "first", "1")
	entered, held := make(chan struct{}, 100), make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(held) }) }
	t.Cleanup(release)
	fs.set(func(op, path string) error {
		if op == "create" && isTable(path) {
			entered <- struct{}{}
			<-held
		}
		return nil
	})
	write := func(megabytes int) {
		for i := range 16 * megabytes {
			must(t, db.Set(within(t), fmt.Appendf(nil, "k%d", i), pattern(64<<10), pebble.NoSync))
		}
	}
	write(2)
	receive(t, "a flush to begin", entered)
	write(8)
	// The leader looks every quarter of a second if there is something to flush; it
	// must not take that for done. Every second it looks for its files, so when it has found
	// one missing twice, it has looked if it should flush as well.
	endpoint := filepath.Join(dir, "party", "endpoint")
	for range 2 {
		must(t, os.Remove(endpoint))
		until(t, "the leader misses its endpoint file", func() bool {
			_, err := os.Stat(endpoint)
			return err == nil
		})
	}
	s, err := db.Status(within(t))
	must(t, err)
	release()
	until(t, "all but the last segments are removed", func() bool {
		now, err := db.Status(within(t))
		must(t, err)
		return now.FirstSeq > s.Committed-5*16
	})
}
