package apply

import (
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// While Pebble opens, syncs are put off, but not that of a table, as a compaction may
// make one when opening takes long.
func TestGuardFS_SyncsTablesWhilePebbleOpens(t *testing.T) {
	fs := vfs.NewCrashableMem()
	g := newGuardFS(fs)
	f, err := g.Create("000001.sst", "pebble-compaction")
	if err == nil {
		_, err = f.Write([]byte("table"))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := fs.OpenDir("")
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := fs.CrashClone(vfs.CrashCloneCfg{}).Open("000001.sst")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(after); err != nil || string(b) != "table" {
		t.Errorf("the power cut left %q, %v", b, err)
	}
}
