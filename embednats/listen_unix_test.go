//go:build !windows

package embednats_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pebbleparty/pebbleparty/embednats"
)

func mode(t testing.TB, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	check(t, err)
	return fi.Mode()
}

// longDir makes a folder with a path of at least 300 bytes that ends in name.
func longDir(t testing.TB, base, name string) string {
	t.Helper()
	dir := filepath.Join(base, strings.Repeat("a", 140), strings.Repeat("b", 160), name)
	check(t, os.MkdirAll(dir, 0o700))
	return dir
}

// shortDir is a folder whose socket needs no other place: t.TempDir has the test's name in it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "en")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestListen_Modes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // no test here runs in parallel
	s := newServer(t)
	dir := shortDir(t)
	a, err := s.Listen(dir)
	check(t, err)
	if path(a) != filepath.Join(dir, "nats.sock") {
		t.Errorf("address is %s", a)
	}
	if m := mode(t, path(a)); m != fs.ModeSocket|0o600 {
		t.Errorf("socket has mode %s", m)
	}
	check(t, s.Close())
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestListen_LongPath(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	for name, tmp := range map[string]string{"in TMPDIR": shortDir(t), "TMPDIR too long": longDir(t, shortDir(t), "tmp")} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			dir := longDir(t, t.TempDir(), "party")
			t.Setenv("TMPDIR", tmp)
			a, err := s.Listen(dir)
			check(t, err)
			folder := filepath.Dir(path(a))
			if len(path(a)) > 100 || mode(t, path(a)) != fs.ModeSocket|0o600 || mode(t, folder) != fs.ModeDir|0o700 {
				t.Errorf("%s: %s, %s", a, mode(t, path(a)), mode(t, folder))
			}
			nc, _ := dial(t, a)
			check(t, ask(nc, 100))
			check(t, s.Close())
			if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder is left: %v", err)
			}
		})
	}
}

func TestListen_LongPathsDoNotMix(t *testing.T) {
	base := t.TempDir()
	var ids []string
	for _, name := range []string{"one", "two"} {
		s := newServer(t)
		a, err := s.Listen(longDir(t, base, name))
		check(t, err)
		nc, _ := dial(t, a)
		lead, err := s.Connect()
		check(t, err)
		if nc.ConnectedServerId() != lead.ConnectedServerId() {
			t.Errorf("%s leads to another server", a)
		}
		ids = append(ids, nc.ConnectedServerId())
	}
	if ids[0] == ids[1] {
		t.Error("both are one")
	}
}

func TestListen_ReplacesStaleSocket(t *testing.T) {
	dir := shortDir(t)
	p := startProcess(t, "lead", dir)
	stale := embednats.Address(p.line(t))
	p.kill()
	mode(t, path(stale))
	if _, _, err := embednats.Dial(context.Background(), stale); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("err = %v", err)
	}
	s := newServer(t)
	a, err := s.Listen(dir)
	check(t, err)
	if a != stale {
		t.Errorf("address is %s, was %s", a, stale)
	}
	nc, _ := dial(t, a)
	check(t, ask(nc, 100))
}

func TestListen_LeavesOtherFiles(t *testing.T) {
	s := newServer(t)
	dir := shortDir(t)
	file := filepath.Join(dir, "nats.sock")
	check(t, os.WriteFile(file, []byte("mine"), 0o600))
	if _, err := s.Listen(dir); err == nil {
		t.Error("Listen works")
	}
	if b, err := os.ReadFile(file); string(b) != "mine" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := s.Listen(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}

func TestRemoveStale_KilledLeader(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	for _, dir := range []string{shortDir(t), longDir(t, t.TempDir(), "party")} {
		p := startProcess(t, "lead", dir)
		a := embednats.Address(p.line(t))
		p.kill()
		mode(t, path(a))
		embednats.RemoveStale(dir, a)
		if _, err := os.Lstat(path(a)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left", a)
		}
		if folder := filepath.Dir(path(a)); folder != dir {
			if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left", folder)
			}
		}
	}
}

func TestRemoveStale_LeavesWhatIsNotOurs(t *testing.T) {
	tmp := shortDir(t)
	t.Setenv("TMPDIR", tmp)
	dir := filepath.Join(tmp, "dir")
	for name, c := range map[string]struct {
		folder string
		perm   fs.FileMode
		file   string
		socket bool
		addr   string
	}{
		"another name":       {dir, 0o700, "other.sock", true, "unix:" + dir + "/other.sock"},
		"a regular file":     {dir, 0o700, "nats.sock", false, "unix:" + dir + "/nats.sock"},
		"another scheme":     {dir, 0o700, "nats.sock", true, "pipe:" + dir + "/nats.sock"},
		"not a clean path":   {dir, 0o700, "nats.sock", true, "unix:" + dir + "/../dir/nats.sock"},
		"another directory":  {tmp + "/elsewhere", 0o700, "nats.sock", true, "unix:" + tmp + "/elsewhere/nats.sock"},
		"not in tmp":         {tmp + "/sub/pebbleparty-1", 0o700, "nats.sock", true, "unix:" + tmp + "/sub/pebbleparty-1/nats.sock"},
		"not our digits":     {tmp + "/pebbleparty-x1", 0o700, "nats.sock", true, "unix:" + tmp + "/pebbleparty-x1/nats.sock"},
		"a folder for all":   {tmp + "/pebbleparty-2", 0o755, "nats.sock", true, "unix:" + tmp + "/pebbleparty-2/nats.sock"},
		"a file in a folder": {tmp + "/pebbleparty-3", 0o700, "nats.sock", false, "unix:" + tmp + "/pebbleparty-3/nats.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, os.MkdirAll(c.folder, c.perm))
			defer os.RemoveAll(c.folder)
			file := filepath.Join(c.folder, c.file)
			if c.socket {
				l, err := net.Listen("unix", file)
				check(t, err)
				defer l.Close()
			} else {
				check(t, os.WriteFile(file, nil, 0o600))
			}
			embednats.RemoveStale(dir, embednats.Address(c.addr))
			mode(t, file)
		})
	}
}

func TestRemoveStale_KeepsFolderThatIsNotEmpty(t *testing.T) {
	tmp := shortDir(t)
	t.Setenv("TMPDIR", tmp)
	folder := filepath.Join(tmp, "pebbleparty-4")
	check(t, os.Mkdir(folder, 0o700))
	check(t, os.WriteFile(folder+"/precious", nil, 0o600))
	link := filepath.Join(tmp, "pebbleparty-5")
	check(t, os.Symlink(folder, link))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: folder + "/nats.sock", Net: "unix"})
	check(t, err)
	defer l.Close()
	l.SetUnlinkOnClose(false)
	embednats.RemoveStale("/nowhere", embednats.Address("unix:"+link+"/nats.sock"))
	mode(t, folder+"/nats.sock") // not through a symbolic link
	embednats.RemoveStale("/nowhere", embednats.Address("unix:"+folder+"/nats.sock"))
	mode(t, folder+"/precious")
	if _, err := os.Lstat(folder + "/nats.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is left")
	}
}
