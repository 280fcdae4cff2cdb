//go:build !windows

package embednats_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/embednats"
)

// A leader may have better things to do than to answer: what is sent meanwhile follows the CONNECT.
func TestDial_WaitsForNobody(t *testing.T) {
	noLeak(t)
	dir := shortDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "nats.sock"))
	check(t, err)
	defer l.Close()
	nc, lost, err := embednats.Dial(context.Background(), dir, "unix:nats.sock")
	check(t, err)
	defer nc.Close()
	_, err = nc.Subscribe("inbox", func(*nats.Msg) {})
	check(t, err)
	check(t, nc.PublishRequest("subject", "inbox", []byte("body")))
	c, err := l.Accept()
	check(t, err)
	defer c.Close()
	first := make([]byte, 4096) // all came in one piece
	n, err := c.Read(first)
	check(t, err)
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(first[:n]), c))
	line, err := in.ReadString('\n')
	check(t, err)
	if op, args, _ := strings.Cut(line, " "); op != "CONNECT" || !strings.Contains(args, `"no_responders":true`) {
		t.Errorf("it begins with %q", line)
	}
	want := "SUB inbox  1\r\nPUB subject inbox 4\r\nbody\r\n"
	if !strings.HasSuffix(string(first[:n]), "\r\n"+want) {
		t.Errorf("the first piece is %q, %q should be its end", first[:n], want)
	}
	_, err = io.CopyN(io.Discard, in, int64(len(want)))
	check(t, err)

	// The first PING that arrives is that of a Flush, and what the server says of itself counts.
	flushed := make(chan error)
	go func() { flushed <- nc.Flush() }()
	line, err = in.ReadString('\n')
	check(t, err)
	if line != "PING\r\n" {
		t.Errorf("%q where a PING was expected", line)
	}
	_, err = io.WriteString(c, `INFO {"server_id":"me","proto":1,"headers":true,"max_payload":100}`+"\r\nPONG\r\n")
	check(t, err)
	check(t, <-flushed)
	if nc.ConnectedServerId() != "me" || nc.MaxPayload() != 100 {
		t.Errorf("the server is %q, with a payload of %d", nc.ConnectedServerId(), nc.MaxPayload())
	}
	check(t, c.Close())
	wait(t, lost, "the end of the connection")
}

func TestDial_DeadContext(t *testing.T) {
	noLeak(t)
	dir := shortDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "nats.sock"))
	check(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := embednats.Dial(ctx, dir, "unix:nats.sock"); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// Calls on a connection to a stopped leader end with their contexts, even with more unsent than a socket holds.
func TestDial_StoppedLeaderHoldsNobody(t *testing.T) {
	noLeak(t)
	p := startProcess(t, "lead", shortDir(t))
	nc, lost := dial(t, placeOf(p.line(t)))
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
