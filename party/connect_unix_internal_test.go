//go:build !windows

package party

import (
	"bytes"
	"net"
	"os"
	"testing"

	"github.com/pebbleparty/pebbleparty/apply"
)

// TestConnect_WritesDoNotWait: a process that has just begun to lead does not answer yet, and has the writes.
func TestConnect_WritesDoNotWait(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, leader := openHere(t, dir)
	c := newCaller(t, leader)
	silent, err := net.Listen("unix", leader.path("silent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c.db.writes, c.db.reads = newLane(1, false), newLane(readSlots, false)
	e, err := readEndpoint(leader.dir)
	if err != nil {
		t.Fatal(err)
	}
	known := leader.leading.Load().log.ID()
	restore := replaceSocket(t, leader, leader.path("silent.sock"))
	connected := make(chan error, 1)
	go func() {
		_, err := connect(ctx, c.db, e, 1, known)
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
	restore()
	r, err := connect(ctx, c.db, e, 2, known)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := <-answered; err != nil || write.answer.Outcome != apply.OutcomeDone {
		t.Fatalf("%+v, %v", write.answer, err)
	}
}
