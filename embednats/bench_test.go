package embednats_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/pebbleparty/pebbleparty/embednats"
)

// rolePlain leads in dir with the least that works: io.Copy both ways. It is what the bridge is measured against.
func rolePlain(dir string) error {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	if err := echo(nc); err != nil {
		return err
	}
	sock := filepath.Join(dir, "nats.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	fmt.Println("unix:" + sock)
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		in, err := s.InProcessConn()
		if err != nil {
			return err
		}
		go func() { _, _ = io.Copy(c, in) }()
		go func() { _, _ = io.Copy(in, c) }()
	}
}

type plainDialer string

func (d plainDialer) Dial(string, string) (net.Conn, error) { return net.Dial("unix", string(d)) }

// BenchmarkRequest is a NATS request from one process to another, over our bridge and over io.Copy: 100 bytes there
// and back by 1 and 64 callers, 64 KiB by 1.
func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct{ callers, size int }{{1, 100}, {64, 100}, {1, 64 << 10}} {
		for _, role := range []string{"plain", "lead"} {
			b.Run(fmt.Sprintf("bridge=%s/callers=%d/bytes=%d", role, c.callers, c.size), func(b *testing.B) {
				dir, err := os.MkdirTemp("", "en")
				check(b, err)
				defer os.RemoveAll(dir)
				p := startProcess(b, role, dir)
				defer p.kill()
				a := p.line(b)
				var nc *nats.Conn
				if role == "plain" {
					nc, err = nats.Connect("nats://127.0.0.1", nats.SetCustomDialer(plainDialer(filepath.Join(dir, "nats.sock"))))
				} else {
					nc, _, err = placeOf(a).dial(context.Background())
				}
				check(b, err)
				defer nc.Close()
				check(b, ask(nc, c.size))
				var left atomic.Int64
				left.Store(int64(b.N))
				body := make([]byte, c.size)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for range c.callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := nc.Request("echo", body, patience); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkStart is what a failover waits for, step by step.
func BenchmarkStart(b *testing.B) {
	dir, err := os.MkdirTemp("", "en")
	check(b, err)
	defer os.RemoveAll(dir)
	for step, name := range []string{"start", "start+connect", "start+connect+listen"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := embednats.Start(embednats.Options{})
				check(b, err)
				if step >= 1 {
					_, err := s.Connect()
					check(b, err)
				}
				if step >= 2 {
					_, err := s.Listen(dir)
					check(b, err)
				}
				b.StopTimer()
				check(b, s.Close())
				b.StartTimer()
			}
		})
	}
}

// BenchmarkClose is the other end, with nothing to drain.
func BenchmarkClose(b *testing.B) {
	dir, err := os.MkdirTemp("", "en")
	check(b, err)
	defer os.RemoveAll(dir)
	for b.Loop() {
		b.StopTimer()
		s, err := embednats.Start(embednats.Options{})
		check(b, err)
		_, err = s.Listen(dir)
		check(b, err)
		b.StartTimer()
		check(b, s.Close())
	}
}
