package party_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/party"
)

// replicaFolders returns what is left of replicas.
func replicaFolders(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "party", "replicas"))
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSnapshot_OfKilledProcessIsSwept(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, quietly())
	leads(t, db)
	set(t, db, "a", "1")
	s := take(t, db)
	for range 3 {
		p := start(t, config{Dir: dir})
		p.do(request{Op: "snapshot"})
		p.kill()
	}
	if n := len(replicaFolders(t, dir)); n != 4 {
		t.Fatalf("%d replicas", n)
	}
	must(t, db.Resign(within(t))) // the next term begins with a sweep
	set(t, db, "a", "2")
	until(t, "the replicas of the dead are gone", func() bool { return len(replicaFolders(t, dir)) == 1 })
	sameKeys(t, "the snapshot of the living", contents(t, s), map[string]string{"a": "1"})
}

// A snapshot is not disturbed when its copy falls behind retention; the next one
// is made on a new copy, and the old copy goes with the last snapshot on it.
func TestSnapshot_NewCopyBehindRetention(t *testing.T) {
	dir := newDir(t)
	o := quietly()
	o.Retention.MaxBytes = 4 << 20
	leader := open(t, dir, o)
	leads(t, leader)
	db := open(t, dir, o)
	set(t, db, "a", "1")
	old, other := take(t, db), take(t, db)
	for range 24 {
		must(t, db.Set(within(t), []byte("a"), pattern(1<<20), pebble.NoSync))
	}
	until(t, "the log begins later", func() bool {
		s, err := db.Status(within(t))
		must(t, err)
		must(t, db.Set(within(t), []byte("b"), pattern(100<<10), pebble.NoSync)) // has Pebble flush, and the log go
		return s.FirstSeq > old.Seq()
	})
	set(t, db, "a", "2")
	fresh := take(t, db)
	for i, s := range []*party.Snapshot{old, other} {
		sameKeys(t, fmt.Sprint("old snapshot ", i), contents(t, s), map[string]string{"a": "1"})
	}
	if v, err := fresh.Get(within(t), []byte("a")); err != nil || string(v) != "2" {
		t.Errorf("the new one has %.20q, %v", v, err)
	}
	if n := len(replicaFolders(t, dir)); n != 2 {
		t.Errorf("%d copies", n)
	}
	must(t, old.Close())
	if n := len(replicaFolders(t, dir)); n != 2 {
		t.Errorf("%d copies while there is a snapshot on each", n)
	}
	must(t, other.Close())
	if n := len(replicaFolders(t, dir)); n != 1 {
		t.Errorf("%d copies, want that of the newest snapshot only", n)
	}
}

// unlinkable is a file system where hard links fail.
type unlinkable struct {
	vfs.FS
	err error
}

func (u unlinkable) Link(old, name string) error {
	return &os.LinkError{Op: "link", Old: old, New: name, Err: u.err}
}
func (u unlinkable) Unwrap() vfs.FS { return u.FS }

func TestSnapshot_WithoutHardLinks(t *testing.T) {
	for _, c := range []struct {
		err   error
		works bool
	}{{errors.ErrUnsupported, true}, {os.ErrPermission, false}} {
		t.Run(c.err.Error(), func(t *testing.T) {
			dir := newDir(t)
			o := quietly()
			o.Pebble.FS = unlinkable{vfs.Default, c.err}
			leader := open(t, dir, o)
			leads(t, leader)
			set(t, leader, "a", "1")
			must(t, leader.Resign(within(t))) // which flushes: there is a table to link
			set(t, leader, "a", "2")
			for _, db := range []*party.DB{leader, open(t, dir, quietly())} {
				s, err := db.NewSnapshot(within(t))
				if c.works {
					must(t, err)
					sameKeys(t, "copied", contents(t, s), map[string]string{"a": "2"})
					must(t, s.Close())
				} else if err == nil {
					t.Error("a snapshot without a copy")
				} else if left := replicaFolders(t, dir); len(left) > 0 {
					t.Errorf("%v; %q are left", err, left)
				}
			}
		})
	}
}
