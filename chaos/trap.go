package chaos

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// trap holds up a process in the middle of something that changes files, so that
// it can be killed just there.
type trap struct {
	Below string `json:"below,omitempty"` // counted is what is done to files below this folder of the database
	After int    `json:"after"`           // so many times nothing happens

	done     atomic.Int64
	released chan struct{}
}

// trapLimit is how long a trap holds: who kills is quicker, or has gone.
const trapLimit = 5 * time.Second

// set sets a trap, and lets go who is in the one before; nil: there is none.
func (d *disk) set(t *trap) {
	if t != nil {
		t.released = make(chan struct{})
	}
	if old := d.trap.Swap(t); old != nil {
		close(old.released)
	}
}

// passes is called before a file, or a folder, is changed or synced.
func (d *disk) passes(path string) {
	t := d.trap.Load()
	if t == nil || !strings.HasPrefix(path, filepath.Join(d.db, t.Below)+string(filepath.Separator)) || t.done.Add(1) != int64(t.After)+1 {
		return
	}
	d.caught()
	limit := time.NewTimer(trapLimit)
	defer limit.Stop()
	select {
	case <-t.released:
	case <-limit.C:
	}
}
