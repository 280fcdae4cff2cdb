//go:build mutation

package party

import (
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

// outstay lets go of the locks and goes on to serve for a while after another
// process leads, or for three seconds if none does. Then the process ends: what it
// would tidy up is the other's.
func (l *leader) outstay() {
	// What it does not do is to write: two writers of one log would break so much
	// that nobody could say what a stale read adds to it.
	blocked := make(chan struct{})
	l.seq.local <- &job{reply: func(uint64, []apply.Answer) {
		close(blocked)
		<-l.ctx.Done()
		runtime.Goexit()
	}}
	<-blocked
	l.machine.Fence()
	_ = l.lock.unlock()
	// Closing any descriptor of a file frees all locks that this process has on it.
	if f, err := os.Open(filepath.Join(l.db.dir, "LOCK")); err == nil {
		_ = f.Close()
	}
	end := time.Now().Add(3 * time.Second)
	for time.Now().Before(end) && l.word.Term() == l.term {
		<-time.After(time.Millisecond)
	}
	<-time.After(time.Second)
	os.Exit(0)
}
