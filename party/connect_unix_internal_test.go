//go:build !windows

package party

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/embednats"
)

// TestConnect_WritesDoNotWait: a process that has just begun to lead does not answer yet, and has the writes.
func TestConnect_WritesDoNotWait(t *testing.T) {
	ctx, leader := openHere(t, t.TempDir())
	dir, err := os.MkdirTemp("", "") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	silent, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := newCaller(t, leader)
	c.db.writes, c.db.reads = newLane(1, false), newLane(readSlots, false)
	e, err := readEndpoint(leader.dir)
	if err != nil {
		t.Fatal(err)
	}
	known := leader.leading.Load().log.ID()
	there := e
	there.Address = embednats.Address("unix:" + silent.Addr().String())
	connected := make(chan error, 1)
	go func() {
		_, err := connect(ctx, c.db, there, 1, known)
		connected <- err
	}()
	answered := make(chan error, 1)
	write := &call{cmd: &apply.Command{Origin: c.db.origin, Sync: true, Repr: apply.ReprSet([]byte("a"), nil)}}
	go func() { answered <- c.db.writes.do(ctx, write) }()
	sock, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var sent []byte
	for !bytes.Contains(sent, []byte("PUB "+subjectAsk)) || !bytes.Contains(sent, []byte("PUB "+subjectWrite)) {
		b := make([]byte, 4096)
		n, err := sock.Read(b)
		if err != nil {
			t.Fatalf("%v behind %q", err, sent)
		}
		sent = append(sent, b[:n]...)
	}
	if err := sock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-connected; err == nil {
		t.Fatal("connected to nobody")
	}
	r, err := connect(ctx, c.db, e, 2, known)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := <-answered; err != nil || write.answer.Outcome != apply.OutcomeDone {
		t.Fatalf("%+v, %v", write.answer, err)
	}
}
