package embednats

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrClosed is returned by the methods of a Server after Close.
var ErrClosed = errors.New("embednats: server closed")

// errStuck is a listener that does not close, with an Accept that does not return: known of go-winio's named pipes.
var errStuck = errors.New("embednats: the listener does not close")

const (
	defaultMaxPayload = 1<<20 + 64<<10
	defaultQueueLimit = 64 << 20
	defaultDrain      = 100 * time.Millisecond
	defaultPatience   = time.Second

	// forever stands where nats-server takes zero for "use the default". A stopped process (SIGSTOP, a suspended laptop)
	// must find its connections alive when it goes on.
	forever = 365 * 24 * time.Hour
)

// Options configures Start. The zero value works.
type Options struct {
	// Logger receives what nats-server and the bridge have to say. Nil: silent.
	Logger *slog.Logger
	// MaxPayload is the largest body of one NATS message, in bytes. nats-server warns above 8 MiB.
	// Default 1 MiB + 64 KiB.
	MaxPayload int32
	// Name is what the server calls itself in INFO; no spaces. Default "pebbleparty".
	Name string
}

// Server is a NATS server inside this process, for one term of leadership. It ends with Close and is not started again.
type Server struct {
	// immutable after Start; tests lower the limits before Listen
	ns         *server.Server
	log        *slog.Logger
	queueLimit int           // bytes that wait for one follower
	patience   time.Duration // how long a follower over that limit may take nothing
	drain      time.Duration // how long Close lets queues drain
	quit       chan struct{} // closed when Close begins
	accepted   chan struct{} // closed when the accept loop ends

	wg   sync.WaitGroup // a bridge per follower; Add under mu while !closing
	once sync.Once      // Close
	err  error          // of Close; read after once

	followers atomic.Int64

	mu      sync.Mutex
	closing bool
	ep      *endpoint             // nil before Listen
	conns   map[net.Conn]struct{} // both ends of every bridge and our end of every Connect: what cut closes
}

// Start starts a server that only this process can reach; Listen opens it to others. It does not wait for anything:
// the server is ready for Connect and Listen when Start returns. The caller must Close it.
func Start(o Options) (*Server, error) {
	if o.MaxPayload == 0 {
		o.MaxPayload = defaultMaxPayload
	}
	if o.MaxPayload < 0 {
		return nil, fmt.Errorf("embednats: MaxPayload is negative: %d", o.MaxPayload)
	}
	if o.Name == "" {
		o.Name = "pebbleparty"
	}
	ns, err := server.NewServer(serverOptions(o))
	if err != nil {
		return nil, fmt.Errorf("embednats: new server: %w", err)
	}
	s := &Server{
		ns:         ns,
		log:        o.Logger,
		queueLimit: defaultQueueLimit,
		patience:   defaultPatience,
		drain:      defaultDrain,
		quit:       make(chan struct{}),
		accepted:   make(chan struct{}),
		conns:      make(map[net.Conn]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	setLogger(ns, s.log)
	ns.Start() // returns at once: DontListen leaves it no accept loop to run
	prepareListen()
	return s, nil
}

// serverOptions turns off all that a server among servers does and all that cuts a client for being slow.
// A client that does not read cannot harm this server, because the bridge reads for it and has a limit of its own;
// were MaxPending in reach, nats-server would make every *producer* wait (client.stalledWait) once a consumer had
// three quarters of it pending, and that producer is the leader.
func serverOptions(o Options) *server.Options {
	return &server.Options{
		ServerName:             o.Name,
		DontListen:             true,
		NoSigs:                 true,
		NoLog:                  true, // SetLoggerV2 instead
		NoSystemAccount:        true,
		MaxPayload:             o.MaxPayload,
		MaxPending:             1 << 50,
		MaxConn:                math.MaxInt32, // 0 would be 64 Ki, below 0 nobody; MaxSubs 0 is unlimited
		MaxPingsOut:            math.MaxInt32,
		PingInterval:           forever,
		DisableShortFirstPing:  true,
		WriteDeadline:          forever,
		MaxClosedClients:       1, // 10,000 slots by default, for a monitoring page that we do not serve
		JetStreamConcurrentIOs: 1, // likewise: slots for a JetStream that is off, a quarter of the time that Start takes
	}
}

// Connect returns a connection of this process to its own server. It does not reconnect; it ends with Close of either.
// Options that name another server, or set timers on the connection, are overruled. Asynchronous errors go to the
// Logger unless opts has an ErrorHandler.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append([]nats.Option{nats.ErrorHandler(logAsync(s.log))}, opts...)
	all = append(all, pinned, nats.InProcessServer(inProcess{s}))
	nc, err := nats.Connect("", all...)
	if err != nil {
		return nil, fmt.Errorf("embednats: connect in process: %w", err)
	}
	return nc, nil
}

// Listen binds the socket in dir and begins to accept followers. dir must exist with mode 0700 and the caller must hold
// the leader lock: a socket file that is in the way is taken for a dead leader's and removed. A Server listens once.
// The address is for other processes, which have to know dir by some path too, and stays valid until Close. The
// path of dir may be longer than a socket's address.
//
// Between bind and listen, some microseconds, a follower that dials an address it knew before is refused.
func (s *Server) Listen(dir string) (Address, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return "", ErrClosed
	case s.ep != nil:
		return "", errors.New("embednats: already listening")
	}
	ep, err := listen(dir)
	if err != nil {
		return "", fmt.Errorf("embednats: listen in %s: %w", dir, err)
	}
	s.ep = ep
	go s.accept(ep)
	return ep.addr, nil
}

// Close ends the server. Safe to call again, and from several goroutines: all return when it is done.
//
// In this order: the socket is closed and its file removed; the server takes no more from anybody, writes out what it
// had routed, and closes its clients; what waits for followers whose sockets take it is sent; then everything is cut,
// drained or not, 100 ms after Close began. So a reply reaches a follower that reads, if the leader published it on its own connection
// and called Flush on that before Close. Requests of followers that were not yet handled are dropped, and
// connections from Connect end too. Every goroutine of the server has ended when Close returns, but for one case:
// a Windows pipe that does not close is left behind after two seconds, and Close returns an error.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closing = true
		ep := s.ep
		s.mu.Unlock()
		close(s.quit)

		isCut := make(chan struct{})
		timer := time.AfterFunc(s.drain, func() { s.cut(); close(isCut) })
		if ep != nil {
			if s.err = ep.close(); !errors.Is(s.err, errStuck) {
				<-s.accepted
			}
		}
		// Each client's writeLoop flushes before it closes its pipe; the bridges go on reading meanwhile, so this ends.
		s.ns.Shutdown()
		s.wg.Wait()
		if !timer.Stop() {
			<-isCut
		}
		s.cut() // what Connect handed out: its server side is gone, but nats.go may not have looked yet
	})
	return s.err
}

// Followers returns how many connections of followers there are.
func (s *Server) Followers() int { return int(s.followers.Load()) }

// Subscribed tells whether anybody, in any process, is subscribed to subject. A connection's subscriptions end with it,
// at once when its process dies.
func (s *Server) Subscribed(subject string) bool {
	return s.ns.GlobalAccount().SubscriptionInterest(subject)
}

// cut closes every connection under the server, which ends whoever waits on one.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // does not wait for the peer, so mu may be held
	}
}

// pipe returns the client's end of a new in-process connection, already registered for cut.
func (s *Server) pipe() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	c, err := s.ns.InProcessConn()
	if err != nil {
		return nil, err
	}
	s.conns[c] = struct{}{}
	return c, nil
}

func (s *Server) forget(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// inProcess gives nats.go a pipe to the server.
type inProcess struct{ s *Server }

func (p inProcess) InProcessConn() (net.Conn, error) {
	c, err := p.s.pipe()
	if err != nil {
		return nil, err
	}
	return &trackedPipe{Conn: c, s: p.s}, nil
}

// trackedPipe is forgotten by its server when nats.go closes it.
type trackedPipe struct {
	net.Conn
	s *Server
}

func (c *trackedPipe) Close() error {
	c.s.forget(c.Conn)
	return c.Conn.Close()
}
