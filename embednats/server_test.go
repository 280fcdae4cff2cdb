package embednats_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/pebbleparty/pebbleparty/embednats"
)

func TestDial_RequestsFromAnotherProcess(t *testing.T) {
	s := newServer(t)
	p := startProcess(t, "ask", listen(t, s).String())
	p.expect(t, "done")
}

func TestDial_LostWhenLeaderIsKilled(t *testing.T) {
	noLeak(t)
	p := startProcess(t, "lead", t.TempDir())
	nc, lost := dial(t, placeOf(p.line(t)))
	check(t, ask(nc, 100))
	p.kill()
	wait(t, lost, "the follower to hear of it")
	until(t, "nats.go to notice", nc.IsClosed)
}

func TestDial_LostWhenClosed(t *testing.T) {
	a := listen(t, newServer(t))
	nc, lost := dial(t, a)
	nc.Close()
	wait(t, lost, "lost")
}

func TestDial_BadAddress(t *testing.T) {
	noLeak(t)
	dir := shortDir(t)
	sub := filepath.Join(dir, "sub")
	check(t, os.Mkdir(sub, 0o700))
	if runtime.GOOS != "windows" { // somebody is there, but it is no address
		for _, sock := range []string{filepath.Join(sub, "other.sock"), filepath.Join(dir, "nats.sock")} {
			l, err := net.Listen("unix", sock)
			check(t, err)
			defer l.Close()
		}
	}
	for _, a := range []embednats.Address{"", "unix:", "unix:@x", "unix:other.sock", "unix:../nats.sock", embednats.Address("unix:" + dir + "/nats.sock"),
		"tcp:127.0.0.1:4222", "pipe:", `pipe:\\.\pipe\other`} {
		if nc, lost, err := embednats.Dial(context.Background(), sub, a); err == nil || nc != nil || lost != nil {
			t.Errorf("Dial(%q) = %v, %v, %v", a, nc, lost, err)
		}
		if embednats.Listening(context.Background(), sub, a) {
			t.Errorf("somebody listens at %q", a)
		}
	}
}

func TestDial_OverrulesOptions(t *testing.T) {
	a := listen(t, newServer(t))
	nc, lost, err := a.dial(context.Background(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.InProcessServer(nil), nats.Name("me"))
	check(t, err)
	defer nc.Close()
	if nc.Opts.AllowReconnect || nc.Opts.RetryOnFailedConnect || nc.Opts.PingInterval != 0 || nc.Opts.Name != "me" {
		t.Errorf("options are %+v", nc.Opts)
	}
	select {
	case <-lost:
		t.Error("lost")
	default:
	}
}

func TestServer_MaxPayload(t *testing.T) {
	noLeak(t)
	if _, err := embednats.Start(embednats.Options{MaxPayload: -1}); err == nil {
		t.Error("a negative MaxPayload is taken")
	}
	s, err := embednats.Start(embednats.Options{MaxPayload: 1000, Name: "small"})
	check(t, err)
	defer s.Close()
	lead, err := s.Connect()
	check(t, err)
	check(t, echo(lead))
	nc, _ := dial(t, listen(t, s))
	check(t, ask(nc, 1000))
	if err := ask(nc, 1001); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("err = %v", err)
	}
	if nc.ConnectedServerName() != "small" {
		t.Errorf("name is %q", nc.ConnectedServerName())
	}
}

func TestServer_LargePayloadsFromManyCallers(t *testing.T) {
	a := listen(t, newServer(t))
	nc, _ := dial(t, a)
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for range cap(errs) {
		wg.Go(func() { errs <- ask(nc, 1<<20) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		check(t, err)
	}
}

func TestServer_ConnectionsLeaveNothingBehind(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	nc, _ := dial(t, a) // so that the poller has its descriptors
	nc.Close()
	until(t, "the server to forget the first client", func() bool { return embednats.Clients(s) == 1 })
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	for range 10 {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				nc, _, err := a.dial(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				if err := ask(nc, 100); err != nil {
					t.Error(err)
				}
				nc.Close()
			})
		}
		wg.Wait()
	}
	until(t, "the server to forget the clients", func() bool { return embednats.Clients(s) == 1 })
	until(t, "the descriptors to be closed", func() bool { return openFiles(t) <= fds })
	until(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// openFiles counts the descriptors of this process, where it can.
func openFiles(t testing.TB) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(fds)
}

func TestServer_SubscribedUntilTheConnectionEnds(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	nc, _ := dial(t, a)
	sub, err := nc.SubscribeSync("inbox.1")
	check(t, err)
	_, err = nc.SubscribeSync("inbox.2")
	check(t, err)
	check(t, nc.Flush())
	if !s.Subscribed("inbox.1") || !s.Subscribed("inbox.2") || s.Subscribed("inbox.3") {
		t.Error("the server does not know who is subscribed")
	}
	check(t, sub.Unsubscribe())
	check(t, nc.Flush())
	if s.Subscribed("inbox.1") || !s.Subscribed("inbox.2") {
		t.Error("the server does not know who is still subscribed")
	}
	nc.Close()
	until(t, "the subscription to end with its connection", func() bool { return !s.Subscribed("inbox.2") })
}

func TestServer_CloseTwice(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	nc, lost := dial(t, a)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { _ = s.Close() })
	}
	wg.Wait()
	check(t, s.Close())
	wait(t, lost, "the follower to hear of it")
	until(t, "nats.go to notice", nc.IsClosed)
	if _, err := s.Connect(); !errors.Is(err, embednats.ErrClosed) {
		t.Errorf("Connect: %v", err)
	}
	if _, err := s.Listen(t.TempDir()); !errors.Is(err, embednats.ErrClosed) {
		t.Errorf("Listen: %v", err)
	}
	if _, _, err := a.dial(context.Background()); err == nil {
		t.Error("Dial works")
	}
}

func TestServer_ListensOnce(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	if _, err := s.Listen(t.TempDir()); err == nil {
		t.Error("Listen works again")
	}
	nc, _ := dial(t, a)
	check(t, ask(nc, 1))
}

func TestServer_CloseDuringDials(t *testing.T) {
	s := newServer(t)
	a := listen(t, s)
	var started, ended sync.WaitGroup
	for range 8 {
		started.Add(1)
		ended.Go(func() {
			nc, lost, err := a.dial(context.Background())
			started.Done()
			for ; err == nil; nc, lost, err = a.dial(context.Background()) {
				go nc.Close()
				<-lost
			}
		})
	}
	started.Wait()
	within(t, "Close", func() { check(t, s.Close()) })
	within(t, "the dialers", ended.Wait)
}

// What the leader has published and flushed before Close reaches a follower that reads.
func TestServer_CloseDeliversFlushedReplies(t *testing.T) {
	const n = 2000
	s := newServer(t)
	embednats.SetLimits(s, 64<<20, patience, patience)
	lead, err := s.Connect()
	check(t, err)
	nc, lost := dial(t, listen(t, s))
	got := make(chan struct{}, n)
	_, err = nc.Subscribe("replies", func(*nats.Msg) { got <- struct{}{} })
	check(t, err)
	check(t, nc.Flush())
	reply := make([]byte, 4<<10)
	for range n {
		check(t, lead.Publish("replies", reply))
	}
	check(t, lead.Flush())
	check(t, s.Close())
	wait(t, lost, "the end of the connection")
	until(t, "nats.go to notice", nc.IsClosed)
	if in := nc.Stats().InMsgs; in != n {
		t.Errorf("%d of %d replies came", in, n)
	}
}

func TestServer_TenInOneProcess(t *testing.T) {
	for range 10 {
		s := newServer(t)
		nc, _ := dial(t, listen(t, s))
		id := nc.ConnectedServerId()
		lead, err := s.Connect()
		check(t, err)
		if lead.ConnectedServerId() != id {
			t.Errorf("reached %s, want %s", id, lead.ConnectedServerId())
		}
		check(t, ask(nc, 100))
	}
}

func TestServer_Logs(t *testing.T) {
	noLeak(t)
	var buf bytes.Buffer
	l := slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := embednats.Start(embednats.Options{Logger: l})
	check(t, err)
	a := listen(t, s)
	nc, _ := dial(t, a)
	nc.Close()
	check(t, s.Close())
	out := buf.String()
	if !strings.Contains(out, "Server is ready") || strings.Contains(out, "level=ERROR") || strings.Contains(out, "level=WARN") {
		t.Errorf("logged:\n%s", out)
	}
}
