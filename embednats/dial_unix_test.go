//go:build !windows

package embednats_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/embednats"
)

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
