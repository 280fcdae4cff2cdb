//go:build !windows

package embednats_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
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

func TestListen_Modes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // no test here runs in parallel
	s := newServer(t)
	dir := shortDir(t)
	a, err := s.Listen(dir)
	check(t, err)
	if a != "unix:nats.sock" {
		t.Errorf("address is %s", a)
	}
	if m := mode(t, filepath.Join(dir, "nats.sock")); m != fs.ModeSocket|0o600 {
		t.Errorf("socket has mode %s", m)
	}
	check(t, s.Close())
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A folder with a path too long for a socket's address has its socket in it nevertheless, and nothing stays elsewhere.
func TestListen_LongPath(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	for name, tmp := range map[string]string{"in TMPDIR": shortDir(t), "TMPDIR too long": longDir(t, shortDir(t), "tmp")} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			base := t.TempDir()
			dir, short := longDir(t, base, "party"), filepath.Join(shortDir(t), "link")
			t.Setenv("TMPDIR", tmp)
			a, err := s.Listen(dir)
			check(t, err)
			sock := filepath.Join(dir, "nats.sock")
			if a != "unix:nats.sock" || mode(t, sock) != fs.ModeSocket|0o600 {
				t.Errorf("%s: %s", a, mode(t, sock))
			}
			nc, _ := dial(t, place{dir, a})
			check(t, ask(nc, 100))
			// The same folder by a path that is short, and by one that is relative and long.
			check(t, os.Symlink(dir, short))
			relative, err := filepath.Rel(base, dir)
			check(t, err)
			t.Chdir(base)
			for _, dir := range []string{short, relative} {
				nc, _ := dial(t, place{dir, a})
				check(t, ask(nc, 100))
			}
			if left, err := os.ReadDir(tmp); len(left) != 0 || err != nil {
				t.Errorf("left behind: %v %v", left, err)
			}
			check(t, s.Close())
			if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// Either way to a short path leads to the folder, and is gone afterwards.
func TestListen_ShortPaths(t *testing.T) {
	dir, tmp := longDir(t, t.TempDir(), "party"), shortDir(t)
	for name, shorten := range map[string]func(string) (string, func(), error){"by descriptor": embednats.ByDescriptor, "by link": embednats.ByLink} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", tmp)
			short, done, err := shorten(dir)
			if name == "by descriptor" && runtime.GOOS != "linux" {
				if err == nil {
					done()
				}
				t.Skip("there is no /proc/self/fd but on Linux")
			}
			check(t, err)
			l, err := net.Listen("unix", short+"/nats.sock")
			check(t, err)
			done()
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			if m := mode(t, filepath.Join(dir, "nats.sock")); m.Type() != fs.ModeSocket {
				t.Errorf("it is a %s", m)
			}
			if !embednats.Listening(context.Background(), dir, "unix:nats.sock") {
				t.Error("nobody listens")
			}
			check(t, l.Close())
			if embednats.Listening(context.Background(), dir, "unix:nats.sock") {
				t.Error("somebody listens where a socket is left")
			}
			check(t, os.Remove(filepath.Join(dir, "nats.sock")))
			if embednats.Listening(context.Background(), dir, "unix:nats.sock") {
				t.Error("somebody listens where no socket is")
			}
			if left, err := os.ReadDir(tmp); len(left) != 0 || err != nil {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
	t.Run("no temporary folder", func(t *testing.T) {
		t.Setenv("TMPDIR", filepath.Join(tmp, "missing"))
		if _, _, err := embednats.ByLink(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("err = %v", err)
		}
	})
}

// A leader that is stopped does not take its connections, and when too many wait no more can be made. It is there.
func TestListening_StoppedLeader(t *testing.T) {
	noLeak(t)
	p := startProcess(t, "lead", shortDir(t))
	at := placeOf(p.line(t))
	p.stop(t)
	for range 10 {
		if !embednats.Listening(context.Background(), at.dir, at.addr) {
			t.Fatal("nobody listens")
		}
	}
	// As with a full backlog, which is long by default.
	dir := shortDir(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	check(t, err)
	defer syscall.Close(fd)
	check(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(dir, "nats.sock")}))
	check(t, syscall.Listen(fd, 1))
	if runtime.GOOS != "linux" {
		t.Skip("a full backlog refuses, as a dead leader's socket does, but on Linux")
	}
	for range 10 {
		if !embednats.Listening(context.Background(), dir, "unix:nats.sock") {
			t.Fatal("nobody listens")
		}
	}
}

// What begins with @ is a folder like others, and not a name in Linux's abstract namespace.
func TestDial_FolderThatBeginsWithAt(t *testing.T) {
	noLeak(t)
	t.Chdir(shortDir(t))
	check(t, os.Mkdir("@db", 0o700))
	s, err := embednats.Start(embednats.Options{})
	check(t, err)
	defer s.Close()
	a, err := s.Listen("@db")
	check(t, err)
	nc, _, err := embednats.Dial(context.Background(), "@db", a)
	check(t, err)
	defer nc.Close()
	check(t, nc.Flush())
}

func TestListen_LongPathsDoNotMix(t *testing.T) {
	base := t.TempDir()
	var ids []string
	for _, name := range []string{"one", "two"} {
		s := newServer(t)
		dir := longDir(t, base, name)
		a, err := s.Listen(dir)
		check(t, err)
		nc, _ := dial(t, place{dir, a})
		lead, err := s.Connect()
		check(t, err)
		if nc.ConnectedServerId() != lead.ConnectedServerId() {
			t.Errorf("%s leads to another server", dir)
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
	stale := placeOf(p.line(t))
	p.kill()
	mode(t, path(stale))
	if _, _, err := stale.dial(context.Background()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("err = %v", err)
	}
	s := newServer(t)
	a, err := s.Listen(dir)
	check(t, err)
	if a != stale.addr {
		t.Errorf("address is %s, was %s", a, stale.addr)
	}
	nc, _ := dial(t, stale)
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
