//go:build !windows

package embednats_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
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

func path(a place) string { return filepath.Join(a.dir, strings.TrimPrefix(string(a.addr), "unix:")) }

// Every request of one follower is answered while another does not read what it is sent, and only that other is cut.
func TestServer_StoppedFollowerSlowsNobody(t *testing.T) {
	s := newServer(t)
	embednats.SetLimits(s, 2<<20, time.Millisecond, 100*time.Millisecond)
	a := listen(t, s)
	lead, err := s.Connect()
	check(t, err)
	nc, lost := dial(t, a)
	p := startProcess(t, "follow", a.String())
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
	p := startProcess(t, "follow", a.String())
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
	if embednats.HasPort(s) {
		t.Error("the server has a listener")
	}
	mine := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc to see this process's sockets in: run this on Linux")
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
