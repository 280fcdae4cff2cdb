package embednats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// dialTimeout is for a Dial whose context has no deadline.
const dialTimeout = 2 * time.Second

var errAddress = errors.New("not an address of this version of embednats")

// Address says where a leader listens: "unix:nats.sock", in the folder that Listen was given, or `pipe:\\.\pipe\name`. It is
// meant for a file that other processes read, and for Dial. It has no path in it, because that folder may have another one in
// the process that dials: a container sees a directory where it is mounted.
type Address string

// Dial connects a follower to the leader at a; dir is the folder that it listens in. Until the socket is connected it returns the
// error of ctx as soon as ctx ends, and gives up after two seconds if ctx has no deadline. It does not wait for the leader to answer: one that is stopped accepts
// connections, so whether somebody is there, the first request shows. What nc tells of the server, as nc.ConnectedServerId, is
// known after the first nc.Flush; before that nc.MaxPayload is a server's default. What is subscribed to before the first request,
// or the first nc.Publish or nc.Flush, reaches the leader along with that.
//
// lost is closed when the socket reports its end, when the leader has taken nothing for a second with 64 MiB unsent, or when nc is closed;
// failover can begin there. Requests then in flight may or may not have been handled.
//
// nc never reconnects and never pings. It does not wait for the leader to read: what the socket does not take is kept
// in memory, so a call with a context returns when that ends even while the leader is stopped. nc.Close drops
// what was not sent; call Flush first. Options that name another server or set timers are overruled.
// Asynchronous errors are dropped unless opts has an ErrorHandler.
func Dial(ctx context.Context, dir string, a Address, opts ...nats.Option) (nc *nats.Conn, lost <-chan struct{}, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	sock, err := dial(ctx, dir, a)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("embednats: dial %s in %s: %w", a, dir, err)
	}
	tune(sock)
	c := &followerConn{
		Conn: sock,
		hand: newHandshake(),
		out:  newOutlet(sock, defaultQueueLimit, waitWhenFull(defaultPatience)),
		lost: make(chan struct{}),
	}

	all := append([]nats.Option{nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, opts...)
	all = append(all, pinned, nats.SetCustomDialer(handOver{c}))
	nc, err = nats.Connect("nats://127.0.0.1", all...) // an IP address, so that no name is looked up
	if err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("embednats: connect to %s in %s: %w", a, dir, err)
	}
	return nc, c.lost, nil
}

// Listening tells whether anybody listens at a in dir, by connecting. It is false only if nobody does: of a leader that is stopped,
// or of a socket that this process may not use, it is true. It blocks for as long as Dial.
func Listening(ctx context.Context, dir string, a Address) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	sock, err := dial(ctx, dir, a)
	if err == nil {
		_ = sock.Close()
		return true
	}
	return !nobodyThere(err) && !errors.Is(err, errAddress)
}

// pinned is what every connection of ours has in common. It comes after the caller's options.
func pinned(o *nats.Options) error {
	o.AllowReconnect = false
	o.RetryOnFailedConnect = false
	o.NoRandomize = true
	o.IgnoreDiscoveredServers = true
	o.NoCallbacksAfterClientClose = true
	o.InProcessServer = nil
	o.Timeout = forever  // for the handshake: Dial waits for nobody in it, and Close of the server ends that of Connect
	o.PingInterval = 0   // never: a stopped leader is not a lost one
	o.FlusherTimeout = 0 // likewise; by default a write may take a minute
	return nil
}

// handOver is a nats.CustomDialer with a connection in its hands.
type handOver struct{ c *followerConn }

func (h handOver) Dial(string, string) (net.Conn, error) { return h.c, nil }
func (h handOver) SkipTLSHandshake() bool                { return true }

// followerConn is what nats.go reads and writes: it tells of the socket's end and does not wait for the leader to read.
// nats.go writes under its own lock, which is the one writer at a time that an outlet asks for.
type followerConn struct {
	net.Conn
	hand handshake
	out  *outlet
	lost chan struct{}
	once sync.Once
}

func (c *followerConn) Read(p []byte) (int, error) {
	if n := c.hand.read(p); n > 0 {
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err != nil && !isTimeout(err) {
		c.lose()
	}
	return n, err
}

// Write leaves it to Read to notice the end: replies that arrived before it can still be read.
func (c *followerConn) Write(p []byte) (int, error) {
	if out := c.hand.write(p); len(out) > 0 {
		if err := c.out.write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (c *followerConn) Close() error {
	c.lose()
	c.out.close()
	return nil
}

func (c *followerConn) lose() { c.once.Do(func() { close(c.lost) }) }

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
