package snapshot

import (
	"errors"
	"os"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// word is the commit word of whoever leads, as a process that does not lead sees
// it. It belongs to one goroutine at a time.
type word struct {
	path   string
	commit *eventlog.Commit
	info   os.FileInfo // of the file that is mapped
}

// load returns up to where the log of database id is committed. It looks whether
// the file was replaced, as a new leader does when it finds none that is whole:
// then the mapping is of a file that nobody writes any more. (As long as it is
// mapped, no other file gets its inode.)
func (w *word) load(id eventlog.ID) (uint64, error) {
	info, err := os.Stat(w.path)
	if err != nil {
		return 0, err
	}
	if w.commit == nil || !os.SameFile(info, w.info) {
		if err := w.open(id); err != nil {
			return 0, err
		}
	}
	return w.commit.Committed(), nil
}

// open maps the file that is there now.
func (w *word) open(id eventlog.ID) error {
	w.close()
	for {
		before, err := os.Stat(w.path)
		if err != nil {
			return err
		}
		c, err := eventlog.ReadCommit(w.path)
		if err != nil {
			return err
		}
		after, err := os.Stat(w.path)
		if err == nil && !os.SameFile(before, after) {
			_ = c.Close()
			continue // replaced in between: once in the life of a leader
		}
		if err == nil && c.ID() != id {
			err = errors.New("the commit word is of database " + c.ID().String() + ", not of " + id.String())
		}
		if err != nil {
			_ = c.Close()
			return err
		}
		w.commit, w.info = c, after
		return nil
	}
}

func (w *word) close() {
	if w.commit != nil {
		_ = w.commit.Close() // it has nothing to tell
		w.commit = nil
	}
}
