package embednats

import (
	"errors"
	"net"
	"sync"
	"time"
)

// chunkSize is what one queued buffer holds and one write of the writer goroutine carries.
const chunkSize = 64 << 10

// errBehind ends a connection whose other end does not read.
var errBehind = errors.New("embednats: the other end does not read")

// outlet writes to a socket without waiting for the process at its other end. It tries the socket directly; what that does
// not take at once goes into a queue with a writer goroutine, which lives while there is a queue.
//
// Exactly one goroutine at a time may call write. Only it can make the queue non-empty, so while there is no writer
// nobody else touches the socket, and the direct attempt needs no lock.
type outlet struct {
	// immutable
	conn  net.Conn
	try   func([]byte) (int, error) // one attempt that never waits; may take nothing. Windows: never takes anything
	limit int                       // bytes in the queue before full is asked
	full  func(*outlet) error       // mu held; waits for room, or says why the connection must end

	mu      sync.Mutex
	changed sync.Cond // a chunk was written, or the writer ended
	queue   [][]byte
	spare   []byte // the last chunk written, to use again
	queued  int    // bytes in queue and in the chunk being written
	behind  int    // bytes queued since the socket last took a chunk
	writing bool   // the writer goroutine lives
	err     error  // why nothing is written any more
}

func newOutlet(conn net.Conn, limit int, full func(*outlet) error) *outlet {
	o := &outlet{conn: conn, try: tryWrite(conn), limit: limit, full: full}
	o.changed.L = &o.mu
	return o
}

// cutWhenFull is the leader's: it ends the connection of a follower that does not read. One that reads, only more slowly than
// we send, would come back and ask for the same again. So over the limit a follower is cut if it takes nothing for the
// time of patience, counted from when half the limit has piled up since it last did, or if it is behind by eight times
// the limit. While that is found out its messages wait in nats-server, where they slow nobody.
func cutWhenFull(patience time.Duration) func(*outlet) error {
	return func(o *outlet) error {
		if o.queued > 8*o.limit {
			return errBehind
		}
		if o.behind > o.limit/2 {
			o.await(patience)
		}
		return o.err
	}
}

// waitWhenFull is the follower's: it waits for room, and ends the connection if the leader takes nothing for the time of
// patience. nats.go holds the lock of the whole connection meanwhile, so every call on it waits too, past its context.
func waitWhenFull(patience time.Duration) func(*outlet) error {
	return func(o *outlet) error {
		for o.queued > o.limit && o.err == nil {
			o.await(patience)
		}
		return o.err
	}
}

// await returns when the socket has taken a chunk, or ends the connection. mu is held, and let go meanwhile.
func (o *outlet) await(patience time.Duration) {
	t := time.AfterFunc(patience, func() { o.fail(errBehind) })
	o.changed.Wait()
	t.Stop()
}

// write sends p or queues a copy of it. An error means that the connection is of no more use.
func (o *outlet) write(p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if !o.writing {
		o.mu.Unlock()
		n, err := o.try(p)
		o.mu.Lock()
		if err != nil {
			return err
		}
		if n == len(p) {
			return nil
		}
		p = p[n:]
		o.behind = 0
	}
	o.enqueue(p)
	if o.queued > o.limit {
		if err := o.full(o); err != nil {
			return err
		}
	}
	return o.err
}

// enqueue copies p into the queue and sees that somebody serves it. mu is held.
func (o *outlet) enqueue(p []byte) {
	o.queued += len(p)
	o.behind += len(p)
	for len(p) > 0 {
		last := len(o.queue) - 1
		if last < 0 || len(o.queue[last]) == cap(o.queue[last]) {
			b := o.spare
			if o.spare = nil; b == nil {
				b = make([]byte, 0, chunkSize)
			}
			o.queue = append(o.queue, b[:0])
			last++
		}
		b := o.queue[last]
		n := min(len(p), cap(b)-len(b))
		o.queue[last] = append(b, p[:n]...)
		p = p[n:]
	}
	if !o.writing {
		o.writing = true
		go o.serve()
	}
}

// serve writes the queue and ends with it.
func (o *outlet) serve() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.queue) > 0 {
		b := o.queue[0]
		o.queue[0] = nil
		o.queue = o.queue[1:]

		o.mu.Unlock()
		_, err := o.conn.Write(b)
		if err != nil {
			// The goroutine that calls write may be waiting for something to write, and the one that reads the
			// socket for something to read.
			_ = o.conn.Close()
		}
		o.mu.Lock()

		o.queued -= len(b)
		o.behind = 0
		o.spare = b
		if err != nil && o.err == nil {
			o.err = err
		}
		o.changed.Broadcast()
	}
	o.queue, o.queued, o.writing = nil, 0, false
	o.changed.Broadcast()
}

// finish gives the queue until the deadline to drain and closes the socket. It returns when the writer has ended.
func (o *outlet) finish(deadline time.Time) {
	_ = o.conn.SetWriteDeadline(deadline)
	o.mu.Lock()
	for o.writing {
		o.changed.Wait()
	}
	o.mu.Unlock()
	o.fail(net.ErrClosed)
}

// fail closes the socket, which ends the writer; the queue is lost. The first reason to fail is the one that write returns.
func (o *outlet) fail(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.changed.Broadcast()
	o.mu.Unlock()
	_ = o.conn.Close()
}

// close is fail for the owner: it returns when the writer has ended.
func (o *outlet) close() {
	o.fail(net.ErrClosed)
	o.mu.Lock()
	for o.writing {
		o.changed.Wait()
	}
	o.mu.Unlock()
}
