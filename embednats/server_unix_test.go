//go:build !windows

package embednats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/embednats"
)

// stop stops the process and returns when it has stopped.
func (p *process) stop(t testing.TB) {
	t.Helper()
	check(t, p.Process.Signal(syscall.SIGSTOP))
	var ws syscall.WaitStatus
	_, err := syscall.Wait4(p.Process.Pid, &ws, syscall.WUNTRACED, nil)
	check(t, err)
	if !ws.Stopped() {
		t.Fatalf("wait status %x", ws)
	}
}

func path(a embednats.Address) string { return strings.TrimPrefix(string(a), "unix:") }

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

// After a reboot, somebody else may own a folder that an old address names.
func TestDial_RefusesFolderOfOthers(t *testing.T) {
	noLeak(t)
	tmp := shortDir(t)
	folder := filepath.Join(tmp, "pebbleparty-6")
	check(t, os.Mkdir(folder, 0o777))
	check(t, os.Chmod(folder, 0o777))
	l, err := net.Listen("unix", folder+"/nats.sock")
	check(t, err)
	defer l.Close()
	if _, _, err := embednats.Dial(context.Background(), embednats.Address("unix:"+folder+"/nats.sock")); err == nil {
		t.Error("connected")
	}
}

func TestDial_ContextEndsHandshake(t *testing.T) {
	noLeak(t)
	sock := filepath.Join(shortDir(t), "silent.sock")
	l, err := net.Listen("unix", sock)
	check(t, err)
	defer l.Close()
	a := embednats.Address("unix:" + sock)

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, _, err := embednats.Dial(ctx, a); done <- err }()
	c, err := l.Accept() // the dialer is in or before its handshake
	check(t, err)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	_, err = io.ReadAll(c) // until the other side is closed
	check(t, err)
	c.Close()

	if _, _, err := embednats.Dial(ctx, a); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, _, err := embednats.Dial(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
	if _, _, err := embednats.Dial(context.Background(), a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

// Every request of one follower is answered while another does not read what it is sent, and only that other is cut.
func TestServer_StoppedFollowerSlowsNobody(t *testing.T) {
	s := newServer(t)
	embednats.SetLimits(s, 2<<20, time.Millisecond, 100*time.Millisecond)
	a := listen(t, s)
	lead, err := s.Connect()
	check(t, err)
	nc, lost := dial(t, a)
	p := startProcess(t, "follow", string(a))
	p.expect(t, "following")
	if n := embednats.Clients(s); n != 4 {
		t.Fatalf("%d clients", n)
	}
	p.stop(t)

	const n = 200
	answers := 0
	big := make([]byte, 64<<10)
	for range n {
		check(t, lead.Publish("big", big))
		if err := ask(nc, 100); err != nil {
			t.Fatal(err)
		}
		answers++
	}
	if answers != n {
		t.Errorf("%d of %d requests answered", answers, n)
	}
	until(t, "the stopped follower to be cut", func() bool { return embednats.Clients(s) == 3 })
	select {
	case <-lost:
		t.Error("the other one was cut too")
	default:
	}
	check(t, p.Process.Signal(syscall.SIGCONT))
	p.expect(t, "lost")
	p.expect(t, "again")
	check(t, ask(nc, 100))
}

// A follower that reads more slowly than the leader sends is not cut while it reads.
func TestServer_SlowFollowerIsNotCut(t *testing.T) {
	const n, limit = 128, 4 << 20
	s := newServer(t)
	embednats.SetLimits(s, limit, patience, patience)
	lead, err := s.Connect()
	check(t, err)
	sock, err := net.Dial("unix", path(listen(t, s)))
	check(t, err)
	defer sock.Close()
	_, err = io.WriteString(sock, "CONNECT {\"verbose\":false}\r\nSUB big 1\r\nPING\r\n")
	check(t, err)
	readUntil(t, sock, "PONG\r\n")
	// It falls behind by 64 KiB a round, 8 MiB in all, twice the limit.
	body := make([]byte, 64<<10)
	sent, read := 0, 0
	for range n {
		for range 4 {
			check(t, lead.Publish("big", body))
			sent++
		}
		check(t, lead.Flush())
		for range 3 {
			_, err := io.CopyN(io.Discard, sock, int64(len("MSG big 1 65536\r\n")+len(body)+2))
			check(t, err)
			read++
		}
	}
	for ; read < sent; read++ {
		_, err := io.CopyN(io.Discard, sock, int64(len("MSG big 1 65536\r\n")+len(body)+2))
		check(t, err)
	}
}

func readUntil(t testing.TB, r io.Reader, end string) {
	t.Helper()
	var got []byte
	for !strings.HasSuffix(string(got), end) {
		b := make([]byte, 1)
		_, err := r.Read(b)
		check(t, err)
		got = append(got, b...)
	}
}

func TestServer_CloseWithStoppedFollower(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	lead, err := s.Connect()
	check(t, err)
	p := startProcess(t, "follow", string(a))
	p.expect(t, "following")
	p.stop(t)
	half, err := net.Dial("unix", path(a)) // says nothing, reads nothing
	check(t, err)
	defer half.Close()
	big := make([]byte, 1<<20)
	for range 8 {
		check(t, lead.Publish("big", big))
	}
	check(t, lead.Flush())
	within(t, "Close", func() { check(t, s.Close()) })
}

// Calls on a connection to a stopped leader end with their contexts, even with more unsent than a socket holds.
func TestDial_StoppedLeaderHoldsNobody(t *testing.T) {
	noLeak(t)
	p := startProcess(t, "lead", shortDir(t))
	nc, lost := dial(t, embednats.Address(p.line(t)))
	t.Cleanup(p.kill) // before nc.Close, should that hang
	check(t, ask(nc, 100))
	p.stop(t)
	within(t, "calls to the stopped leader", func() {
		body := make([]byte, 1<<20)
		for range 16 {
			if err := nc.PublishRequest("echo", nc.NewInbox(), body); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := nc.RequestWithContext(ctx, "echo", body); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		cancel()
		wg.Wait()
	})
	select {
	case <-lost:
		t.Error("lost")
	default:
	}
	check(t, p.Process.Signal(syscall.SIGCONT))
	check(t, ask(nc, 100)) // behind all that was sent before
	p.stop(t)
	check(t, nc.Publish("echo", make([]byte, 1<<20)))
	within(t, "nc.Close", nc.Close)
	wait(t, lost, "lost")
}

func TestOutlet_GivesUpOnLeaderThatDoesNotRead(t *testing.T) {
	noLeak(t)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	check(t, err)
	defer syscall.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "socket")
	c, err := net.FileConn(f)
	check(t, err)
	f.Close()
	within(t, "an error", func() {
		if err := embednats.WriteUntilFull(c, 1<<20, time.Millisecond); err == nil {
			t.Error("no error")
		}
	})
}

// A follower that ends in the middle of a message takes its client away and nothing else.
func TestServer_HalfFrame(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	nc, lost := dial(t, a)
	for i := range 20 {
		sock, err := net.Dial("unix", path(a))
		check(t, err)
		_, err = fmt.Fprintf(sock, "CONNECT {\"verbose\":false}\r\nPING\r\nPUB echo reply 100\r\n%s", strings.Repeat("x", i*5))
		check(t, err)
		readUntil(t, sock, "PONG\r\n")
		check(t, sock.Close())
		check(t, ask(nc, 100))
	}
	until(t, "the half clients to be forgotten", func() bool { return embednats.Clients(s) == 2 })
	select {
	case <-lost:
		t.Error("lost")
	default:
	}
	// And the other way: the server throws a client out, and its socket ends.
	sock, err := net.Dial("unix", path(a))
	check(t, err)
	defer sock.Close()
	_, err = io.WriteString(sock, "nonsense\r\n")
	check(t, err)
	if b, err := io.ReadAll(sock); err != nil || !strings.Contains(string(b), "-ERR") {
		t.Errorf("%q %v", b, err)
	}
}

func TestServer_OpensNoPort(t *testing.T) {
	s := newServer(t)
	nc, _ := dial(t, listen(t, s))
	check(t, ask(nc, 1))
	if embednats.Listening(s) {
		t.Error("the server has a listener")
	}
	mine := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		mine[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, _ := os.ReadFile("/proc/self/net/" + table)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 9 && mine[f[9]] {
				t.Errorf("%s: %s", table, line)
			}
		}
	}
}
