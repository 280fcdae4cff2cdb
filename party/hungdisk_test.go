package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// hungFS is a faultFS that sees reads of tables as well.
type hungFS struct{ *faultFS }

func (f hungFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, o...)
	if err != nil || !isTable(name) {
		return file, err
	}
	return &hungFile{File: file, fs: f, path: name}, nil
}

type hungFile struct {
	vfs.File
	fs   hungFS
	path string
}

func (f *hungFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.check("read", f.path); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// inside tells whether the calling goroutine has function on its stack.
func inside(function string) bool {
	b := make([]byte, 64<<10)
	return bytes.Contains(b[:runtime.Stack(b, false)], []byte(function))
}

// anywhere tells whether some goroutine has.
func anywhere(function string) bool {
	b := make([]byte, 16<<20)
	return bytes.Contains(b[:runtime.Stack(b, true)], []byte(function))
}

// TestDB_StepsDownWhileTheDiskHangs: Pebble breaks while the sequencer, or a
// reader, waits for a disk that does not answer. The term ends without them. When
// the disk answers they find a Pebble that was given up, not a closed one, which
// would end the process.
func TestDB_StepsDownWhileTheDiskHangs(t *testing.T) {
	if !party.InOwnProcess(t) {
		return
	}
	broken := errors.New("the disk is broken")
	for _, c := range []struct{ breaks, hangs string }{
		{"write", "sequencer"}, // the manifest, by a flush: a goroutine of Pebble's is parked
		{"write", "reader"},
		{"sync", "sequencer"}, // the manifest that was made while Pebble opened: none is
		{"sync", "reader"},
	} {
		t.Run(c.breaks+" fails, "+c.hangs+" hangs", func(t *testing.T) {
			dir := newDirFor(t, on(nil).Pebble)
			before := open(t, dir, on(nil))
			value := string(pattern(64 << 10)) // in a block of its own, which only a Get reads
			set(t, before, "k", value)
			must(t, before.Close()) // it is in a table now

			fs := hungFS{newFaultFS()}
			breaking, hanging, moved, answers := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			var breakOnce, hangOnce, moveOnce, answerOnce sync.Once
			hang := func() { hangOnce.Do(func() { close(hanging) }) }
			moveOn := func() { moveOnce.Do(func() { close(moved) }) }
			answer := func() { answerOnce.Do(func() { close(answers) }) }
			fault := func(op, path string) error {
				switch {
				case isManifest(path) && strings.HasPrefix(op, c.breaks):
					breakOnce.Do(func() { close(breaking) })
					<-hanging
					<-moved
					return broken
				case c.hangs == "sequencer" && isLog(path) && strings.HasPrefix(op, "sync") && inside("(*sequencer)"),
					c.hangs == "reader" && isTable(path) && op == "read" && inside("(*leader).get"):
					select {
					case <-breaking:
						hang()
						<-answers
					default:
					}
				}
				return nil
			}
			if c.breaks == "sync" {
				fs.set(fault)
			}
			o := on(fs)
			o.Pebble.MemTableSize = 256 << 10
			o.Pebble.DisableAutomaticCompactions = true
			causes := make(chan error, 100)
			o.Events.RoleChanged = func(r party.RoleChange) {
				if r.Cause != nil {
					causes <- r.Cause
				}
			}
			leader := open(t, dir, o)
			t.Cleanup(func() { hang(); moveOn(); answer() })
			leads(t, leader)
			follower := open(t, dir, on(nil))
			hasRole(t, follower, party.Following)
			fs.set(fault)
			until(t, "Pebble writes its manifest", func() bool {
				if c.breaks == "write" {
					must(t, follower.Set(within(t), []byte("pad"), make([]byte, 32<<10), pebble.NoSync))
				}
				select {
				case <-breaking:
					return true
				default:
					return t.Failed()
				}
			})
			called := make(chan error, 1)
			go func() {
				if c.hangs == "sequencer" {
					called <- follower.Merge(within(t), []byte("sum"), []byte("1"), nil)
					return
				}
				v, err := leader.Get(within(t), []byte("k"))
				if err == nil && string(v) != value {
					err = fmt.Errorf("read %.20q", v)
				}
				called <- err
			}()
			if c.breaks == "write" && c.hangs == "reader" {
				// What the reader looks at is replaced meanwhile, so it is the last to let go of
				// that, for which it takes Pebble's mutex.
				receive(t, "the reader to wait for the disk", hanging)
				for range 16 {
					must(t, follower.Set(within(t), []byte("pad"), make([]byte, 32<<10), pebble.Sync))
				}
			}
			moveOn()
			if cause := receive(t, "the leader to step down", causes); !strings.Contains(cause.Error(), broken.Error()) {
				t.Errorf("the cause is %v", cause)
			}
			if c.hangs == "sequencer" {
				until(t, "the end of the term has come to the log", func() bool { return anywhere("eventlog.(*Log).Abort") })
			} else {
				leads(t, follower)
			}
			answer()
			must(t, receive(t, "the call", called))
			leads(t, follower)
			if c.hangs == "sequencer" {
				expect(t, follower, "sum", "1")
			}
			fs.set(nil)
			expect(t, leader, "k", value)
		})
	}
}
