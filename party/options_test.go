package party_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

func TestOpen_ReportsAllInvalidOptions(t *testing.T) {
	dir := t.TempDir()
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	must(t, err)
	defer func() { must(t, lock.Close()) }()
	_, err = party.Open(within(t), dir, &party.Options{
		Pebble:    &pebble.Options{ReadOnly: true, ErrorIfExists: true, FS: vfs.NewMem(), Lock: lock},
		Retention: party.Retention{MaxAge: -1},
	})
	if err == nil {
		t.Fatal("invalid options were accepted")
	}
	for _, name := range []string{"ReadOnly", "ErrorIfExists", "FS", "Lock", "MaxAge"} {
		if !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

func TestOpen_LeavesOptionsAlone(t *testing.T) {
	o := &party.Options{Pebble: &pebble.Options{}}
	open(t, newDir(t), o)
	if o.Pebble.Comparer != nil || o.Pebble.FS != nil || o.Pebble.Lock != nil || o.Pebble.DisableWAL || o.Logger != nil || o.Retention != (party.Retention{}) {
		t.Errorf("Open wrote to its options: %+v", o)
	}
}

// What the tables of a level are to have, as Pebble wrote it down when it was opened.
func TestOpen_LevelsHaveFiltersAndLargeIndexBlocks(t *testing.T) {
	const bloomName = "rocksdb.BuiltinBloomFilter"
	own := *pebble.DefaultComparer
	own.Name = "own"
	set := func(f func(*pebble.LevelOptions)) *pebble.Options {
		o := &pebble.Options{}
		f(&o.Levels[0])
		return o
	}
	tests := []struct {
		name      string
		o         *pebble.Options
		top, last string // filter policies
		index     int    // bytes of an index block
	}{
		{"defaults", nil, bloomName, "none", 256 << 10},
		{"no filters", set(func(l *pebble.LevelOptions) { l.FilterPolicy = pebble.NoFilterPolicy }), "none", "none", 256 << 10},
		{"other filters", set(func(l *pebble.LevelOptions) { l.FilterPolicy = bloom.FilterPolicy(5) }), bloomName, bloomName, 256 << 10},
		{"small index blocks", set(func(l *pebble.LevelOptions) { l.IndexBlockSize = 1 << 10 }), bloomName, "none", 1 << 10},
		{"larger blocks", set(func(l *pebble.LevelOptions) { l.BlockSize = 1 << 20 }), bloomName, "none", 1 << 20},
		{"another comparer", &pebble.Options{Comparer: &own}, "none", "none", 256 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := newDirFor(t, tt.o)
			closeDB(t, open(t, dir, &party.Options{Pebble: tt.o}))
			top, last := levelOptions(t, dir)
			index := fmt.Sprintf("index_block_size=%d\n", tt.index)
			for _, l := range []struct{ options, filter string }{{top, tt.top}, {last, tt.last}} {
				if !strings.Contains(l.options, "filter_policy="+l.filter+"\n") || !strings.Contains(l.options, index) {
					t.Errorf("want filter policy %s and %s, have%s", l.filter, index, l.options)
				}
			}
		})
	}
}

// levelOptions returns what Pebble's OPTIONS file in dir says of the first level and of the last.
func levelOptions(t *testing.T, dir string) (top, last string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "OPTIONS-*"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("there is no OPTIONS file")
	}
	b, err := os.ReadFile(files[len(files)-1])
	must(t, err)
	levels := strings.Split(string(b), "[Level ")[1:]
	return levels[0], levels[len(levels)-1]
}
