package party_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pebbleparty/pebbleparty/party"
)

// container has a child begin in mounts and process numbers of its own, if it is to have them.
func (c config) container() *syscall.SysProcAttr {
	if c.Mount == "" {
		return nil
	}
	return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
}

// enter is called in the child: it sees Dir at Mount, and nothing where that was.
func (c *config) enter() error {
	if c.Mount == "" {
		return nil
	}
	if err := unix.Mount(c.Dir, c.Mount, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", c.Dir, c.Mount, err)
	}
	if err := unix.Mount("tmpfs", filepath.Dir(c.Dir), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("hide %s: %w", c.Dir, err)
	}
	c.Dir = c.Mount
	return nil
}

// TestOpen_Containers: processes in containers have one directory under other names, and other numbers; the longer
// of the names does not fit into a socket's address.
func TestOpen_Containers(t *testing.T) {
	try := t.TempDir()
	err := unix.Mount("tmpfs", try, "tmpfs", 0, "")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODEV) {
		t.Skipf("cannot mount a directory elsewhere (run this as root): %v", err)
	}
	must(t, err)
	must(t, unix.Unmount(try, 0))
	long := filepath.Join(strings.Repeat("a", 100), "db")
	for _, c := range []struct{ name, leader, follower string }{
		{"short and short", "db", "mnt"},
		{"short and long", "db", long},
		{"long and short", long, "mnt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, there := filepath.Join(t.TempDir(), c.leader), filepath.Join(t.TempDir(), c.follower)
			must(t, os.MkdirAll(here, 0o700))
			must(t, os.MkdirAll(there, 0o700))
			outside := start(t, config{Dir: here})
			inside := start(t, config{Dir: here, Mount: there})
			also := open(t, here, nil)
			inside.do(request{Op: "set", Key: []byte("a"), Value: []byte("1")})
			expect(t, also, "a", "1")
			outside.kill()
			inside.do(request{Op: "set", Key: []byte("b"), Value: []byte("2")})
			expect(t, also, "b", "2")
			// Whoever leads now, it ends, and the other way round.
			must(t, also.Close())
			inside.do(request{Op: "set", Key: []byte("c"), Value: []byte("3")})
			last := open(t, here, nil)
			hasRole(t, last, party.Following)
			expect(t, last, "c", "3")
			inside.kill()
			set(t, last, "d", "4")
			expect(t, last, "c", "3")
		})
	}
}
