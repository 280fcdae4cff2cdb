package embednats_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/pebbleparty/pebbleparty/embednats"
	"go.uber.org/goleak"
)

// patience is when a wait has failed; nothing is measured against it.
const patience = 60 * time.Second

// A second process is this test binary run again, with a role.
const roleEnv = "EMBEDNATS_TEST_ROLE"

var roles = map[string]func(arg string) error{
	"lead":   roleLead,
	"plain":  rolePlain,
	"ask":    roleAsk,
	"follow": roleFollow,
}

func TestMain(m *testing.M) {
	role, arg, ok := strings.Cut(os.Getenv(roleEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	if err := roles[role](arg); err != nil {
		fmt.Fprintln(os.Stderr, role, err)
		os.Exit(1)
	}
}

// roleLead leads in dir until its standard input ends.
func roleLead(dir string) error {
	s, err := embednats.Start(embednats.Options{})
	if err != nil {
		return err
	}
	nc, err := s.Connect()
	if err != nil {
		return err
	}
	if err := echo(nc); err != nil {
		return err
	}
	a, err := s.Listen(dir)
	if err != nil {
		return err
	}
	fmt.Println(place{dir, a})
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// roleAsk asks the leader at a for echoes of many sizes.
func roleAsk(a string) error {
	nc, _, err := placeOf(a).dial(context.Background())
	if err != nil {
		return err
	}
	defer nc.Close()
	for _, n := range []int{0, 1, 100, 64 << 10, 1 << 20} {
		if err := ask(nc, n); err != nil {
			return err
		}
	}
	fmt.Println("done")
	return nil
}

// roleFollow subscribes to "big" and, when its connection is lost, dials again.
func roleFollow(a string) error {
	nc, lost, err := placeOf(a).dial(context.Background())
	if err != nil {
		return err
	}
	if _, err := nc.Subscribe("big", func(*nats.Msg) {}); err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	fmt.Println("following")
	<-lost
	nc.Close()
	fmt.Println("lost")
	if nc, _, err = placeOf(a).dial(context.Background()); err != nil {
		return err
	}
	defer nc.Close()
	if err := ask(nc, 100); err != nil {
		return err
	}
	fmt.Println("again")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// echo answers requests on the subject "echo" with what they carry.
func echo(nc *nats.Conn) error {
	if _, err := nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	return nc.Flush()
}

func ask(nc *nats.Conn, n int) error {
	q := strings.Repeat("x", n)
	m, err := nc.Request("echo", []byte(q), patience)
	if err != nil {
		return fmt.Errorf("ask for %d bytes: %w", n, err)
	}
	if string(m.Data) != q {
		return fmt.Errorf("asked for %d bytes, got %d others", n, len(m.Data))
	}
	return nil
}

type process struct {
	*exec.Cmd
	in    io.Closer
	lines chan string // closed at the end of its output
}

func startProcess(t testing.TB, role, arg string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), lines: make(chan string)}
	p.Env = append(os.Environ(), roleEnv+"="+role+" "+arg)
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	check(t, err)
	p.in = in
	out, err := p.StdoutPipe()
	check(t, err)
	check(t, p.Start())
	go func() {
		defer close(p.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			p.lines <- sc.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			t.Fatal("the other process ended")
		}
		return l
	case <-time.After(patience):
		t.Fatal("the other process says nothing")
	}
	return ""
}

func (p *process) expect(t testing.TB, want string) {
	t.Helper()
	if got := p.line(t); got != want {
		t.Fatalf("the other process says %q, want %q", got, want)
	}
}

// kill ends the process with SIGKILL, stopped or not, and is harmless if it has ended.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.in.Close()
	for range p.lines {
	}
	_ = p.Wait()
}

// newServer starts a server with an echo and closes it at the end of the test, which must leave no goroutine.
func newServer(t testing.TB) *embednats.Server {
	t.Helper()
	noLeak(t)
	s, err := embednats.Start(embednats.Options{})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	nc, err := s.Connect()
	check(t, err)
	check(t, echo(nc))
	return s
}

// place is where a server listens, as Dial wants to know it.
type place struct {
	dir  string
	addr embednats.Address
}

func (p place) String() string { return p.dir + " " + string(p.addr) }

// placeOf is the other way.
func placeOf(s string) place {
	i := strings.LastIndexByte(s, ' ')
	return place{s[:i], embednats.Address(s[i+1:])}
}

func (p place) dial(ctx context.Context, opts ...nats.Option) (*nats.Conn, <-chan struct{}, error) {
	return embednats.Dial(ctx, p.dir, p.addr, opts...)
}

func listen(t testing.TB, s *embednats.Server) place {
	t.Helper()
	dir := shortDir(t)
	a, err := s.Listen(dir)
	check(t, err)
	return place{dir, a}
}

// shortDir is a folder whose socket has a name that fits anywhere: t.TempDir has the test's name in it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "en")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// dial returns when the server knows of the connection.
func dial(t testing.TB, a place) (*nats.Conn, <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, lost, err := a.dial(ctx)
	check(t, err)
	t.Cleanup(nc.Close)
	check(t, nc.FlushWithContext(ctx))
	return nc, lost
}

// noLeak fails the test if it leaves goroutines behind. nats.go ends its own some time after Close.
func noLeak(t testing.TB) {
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err = goleak.Find(current); err == nil {
				return
			}
		}
		t.Error(err)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain for: " + what)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("waited in vain for: " + what)
		}
	}
}

// within runs f and fails if it does not return.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	wait(t, done, what)
}
