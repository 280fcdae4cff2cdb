package apply

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Internal: no goroutine of a broken Pebble can be made to write on command.
func TestGuardFS_FenceStopsEveryWrite(t *testing.T) {
	mem := vfs.NewMem()
	g := newGuardFS(mem)
	g.settling.opened()
	if err := g.settling.finish(false); err != nil {
		t.Fatal(err)
	}
	f, err := g.Create("000001.sst", flushCategory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g.lower()
	_, create := g.Create("new", "")
	_, open := g.OpenReadWrite("new", "")
	_, reuse := g.ReuseForWrite("000001.sst", "new", "")
	_, write := f.Write([]byte("x"))
	_, writeAt := f.WriteAt([]byte("x"), 0)
	_, syncTo := f.SyncTo(1)
	for name, err := range map[string]error{
		"Create": create, "OpenReadWrite": open, "ReuseForWrite": reuse, "Link": g.Link("000001.sst", "new"),
		"Rename": g.Rename("000001.sst", "new"), "Remove": g.Remove("000001.sst"), "RemoveAll": g.RemoveAll("000001.sst"),
		"Write": write, "WriteAt": writeAt, "Sync": f.Sync(), "SyncData": f.SyncData(), "SyncTo": syncTo,
		"Preallocate": f.Preallocate(0, 1),
	} {
		if !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	names, err := mem.List("")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
}
