package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/pebbleparty/pebbleparty/party"
)

// smallDisk mounts a disk of size bytes and returns a directory on it for a
// database, which is checked in the clean-up.
func smallDisk(t *testing.T, size int) (disk, dir string) {
	t.Helper()
	disk = t.TempDir()
	err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprint("size=", size))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODEV) {
		t.Skipf("cannot mount a tmpfs for a disk that can be full (run this as root): %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		// The commit word stays mapped until the garbage collector has found that
		// nobody reads it any more.
		runtime.GC()
		runtime.GC()
		err := unix.Unmount(disk, 0)
		if errors.Is(err, unix.EBUSY) {
			// A pebble.Open that fails for want of space leaves files open.
			err = unix.Unmount(disk, unix.MNT_DETACH)
		}
		if err != nil {
			t.Errorf("unmount %s: %v", disk, err)
		}
	})
	dir = filepath.Join(disk, "db")
	t.Cleanup(func() {
		if !t.Failed() {
			checkConsistent(t, dir, nil)
		}
	})
	return disk, dir
}

// fillDisk writes a file that leaves so many bytes of the disk, and returns its
// name.
func fillDisk(t *testing.T, disk string, leave int64) string {
	t.Helper()
	name := filepath.Join(disk, "filler")
	f, err := os.Create(name)
	must(t, err)
	piece := make([]byte, 4096)
	for {
		if _, err = f.Write(piece); err != nil {
			break
		}
	}
	want(t, err, unix.ENOSPC)
	fi, err := f.Stat()
	must(t, err)
	must(t, f.Truncate(fi.Size()-leave))
	must(t, f.Close())
	return name
}

// TestDB_RealDiskFull: no write is acknowledged that is not there later, whoever
// leads and whether or not the leader is killed afterwards.
func TestDB_RealDiskFull(t *testing.T) {
	disk, dir := smallDisk(t, 48<<20)
	leader := start(t, config{Dir: dir})
	follower := open(t, dir, nil)
	hasRole(t, follower, party.Following)
	set(t, follower, "before", "1")
	value := pattern(32 << 10)
	acked := make(map[string]bool)
	write := func(who, key string) error {
		if who == "leader" {
			a := leader.call(request{Op: "set", Key: []byte(key), Value: value})
			if a.Err != "" && !slices.Contains(a.Is, "disk full") {
				t.Fatalf("leader: %s", a.Err)
			}
			if a.Err != "" {
				return party.ErrDiskFull
			}
			return nil
		}
		return follower.Set(within(t), []byte(key), value, nil)
	}
	// fails writes until there is no room, and reads then.
	fails := func(who string) {
		t.Helper()
		until(t, "a write fails for want of space", func() bool {
			key := fmt.Sprintf("v%06d", len(acked))
			err := write(who, key)
			if err == nil {
				acked[key] = true
				return false
			}
			want(t, err, party.ErrDiskFull)
			return true
		})
		expect(t, follower, "before", "1")
		if a := leader.do(request{Op: "get", Key: []byte("before")}); string(a.Value) != "1" {
			t.Errorf("the leader reads %q", a.Value)
		}
		for key := range acked {
			expect(t, follower, key, string(value))
		}
	}
	resumes := func(who, key string) {
		t.Helper()
		until(t, "writes resume", func() bool {
			err := write(who, key)
			if err != nil {
				want(t, err, party.ErrDiskFull)
			}
			return err == nil
		})
		acked[key] = true
	}
	for range 2 {
		filler := fillDisk(t, disk, 64<<10)
		fails("follower")
		fails("leader")
		must(t, os.Remove(filler))
		resumes("follower", fmt.Sprintf("v%06d", len(acked)))
		resumes("leader", fmt.Sprintf("v%06d", len(acked)))
	}
	s, err := follower.Status(within(t))
	must(t, err)
	if s.Term != 1 || s.LeaderPID != leader.pid {
		t.Errorf("a full disk ended the term: %+v", s)
	}
	filler := fillDisk(t, disk, 0)
	fails("follower")
	// Not before there is room: a pebble.Open that fails for want of space leaves
	// files open and goroutines behind, which the check for leaks finds.
	must(t, os.Remove(filler))
	leader.kill()
	resumes("follower", fmt.Sprintf("v%06d", len(acked)))
	leads(t, follower)
	var there []string
	for _, pair := range scan(t, follower, &party.IterOptions{KeysOnly: true}) {
		if key := strings.TrimSuffix(pair, "="); key != "before" {
			there = append(there, key)
		}
	}
	for _, key := range there {
		if !acked[key] {
			t.Errorf("%q was refused and is there", key)
		}
		delete(acked, key)
	}
	for key := range acked {
		t.Errorf("%q was acknowledged and is not there", key)
	}
}

// TestOpen_DiskFull: a database is opened, or not, where there is hardly any
// room; nothing of that keeps it from being opened later.
func TestOpen_DiskFull(t *testing.T) {
	disk, dir := smallDisk(t, 16<<20)
	for _, leave := range []int64{0, 4 << 10, 16 << 10, 64 << 10, 256 << 10} {
		filler := fillDisk(t, disk, leave)
		p := launch(t, config{Dir: dir})
		a := receive(t, "a child to open", p.opened())
		if a.Err != "" && !slices.Contains(a.Is, "disk full") {
			t.Errorf("with %d bytes left: %s", leave, a.Err)
		}
		p.kill()
		must(t, os.Remove(filler))
		db, err := party.Open(within(t), dir, &party.Options{Pebble: &pebble.Options{Logger: silent{}}})
		must(t, err)
		set(t, db, fmt.Sprint("after ", leave), "1")
		must(t, db.Close())
	}
}

func TestSnapshot_DiskFull(t *testing.T) {
	disk, dir := smallDisk(t, 48<<20)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, nil)
	hasRole(t, db, party.Following)
	set(t, db, "before", "1")
	must(t, db.Set(within(t), []byte("large"), pattern(1<<20), nil))
	filler := fillDisk(t, disk, 256<<10)
	want(t, func() error { _, err := db.NewSnapshot(within(t)); return err }(), party.ErrDiskFull)
	want(t, func() error { _, err := db.NewSnapshot(within(t)); return err }(), party.ErrDiskFull)
	if left := replicaFolders(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	expect(t, db, "before", "1")
	leader.do(request{Op: "set", Key: []byte("after"), Value: []byte("2")}) // a small write finds room
	must(t, os.Remove(filler))
	s := take(t, db)
	if v, err := s.Get(within(t), []byte("after")); err != nil || string(v) != "2" {
		t.Errorf("%q, %v", v, err)
	}
	// With a copy open already a full disk is no reason to have no snapshot.
	fillDisk(t, disk, 256<<10)
	set(t, db, "after", "3")
	full := take(t, db)
	if v, err := full.Get(within(t), []byte("after")); err != nil || string(v) != "3" {
		t.Errorf("%q, %v", v, err)
	}
	must(t, s.Close())
	must(t, full.Close())
}

func TestRestore_DiskFull(t *testing.T) {
	disk, dir := smallDisk(t, 48<<20)
	db := open(t, dir, nil)
	noise := rand.NewChaCha8([32]byte{1}) // no table makes it smaller
	for i := range 8 {
		value := make([]byte, 1<<20)
		_, _ = noise.Read(value)
		must(t, db.Set(within(t), fmt.Appendf(nil, "k%d", i), value, nil))
	}
	var stream bytes.Buffer
	seq, err := db.Backup(within(t), &stream)
	must(t, err)
	filler := fillDisk(t, disk, 4<<20)
	above := filepath.Join(disk, "other")
	must(t, os.Mkdir(above, 0o700))
	target := filepath.Join(above, "db")
	_, err = party.Restore(within(t), bytes.NewReader(stream.Bytes()), target)
	want(t, err, party.ErrDiskFull)
	if entries, err := os.ReadDir(above); err != nil || len(entries) > 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
	must(t, os.Remove(filler))
	restore(t, stream.Bytes(), target, nil, seq)
	if n := len(plainKeys(t, target, nil)); n != 8 {
		t.Errorf("%d keys", n)
	}
}
