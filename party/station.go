package party

import (
	"bytes"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/embednats"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// station is a NATS server with this process's own connection to it, subscribed
// to what followers send. It knows nothing of the database, and nobody can reach
// it before Listen; so a follower starts one in advance, and has one thing less
// to do when it becomes the leader.
type station struct {
	server       *embednats.Server
	conn         *nats.Conn
	disconnected chan struct{}  // closed when conn has ended
	commands     chan *nats.Msg // bundles of followers, for the sequencer
	requests     chan *nats.Msg // all else, for the desk
	buffer       []byte         // for the log to read into: memory that the kernel has to find first is slow
}

// inbound is how many messages of followers may wait in this process. Followers
// have a few under way each, so it is never reached; nats.go would drop what is
// beyond it.
const inbound = 1 << 14

func newStation(log *slog.Logger) (_ *station, err error) {
	s := &station{
		disconnected: make(chan struct{}),
		commands:     make(chan *nats.Msg, inbound), requests: make(chan *nats.Msg, inbound),
		buffer: bytes.Repeat([]byte{1}, eventlog.BufferBytes),
	}
	if s.server, err = embednats.Start(embednats.Options{Logger: log, MaxPayload: chunk + 64<<10}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if s.conn, err = s.server.Connect(nats.ClosedHandler(func(*nats.Conn) { close(s.disconnected) })); err != nil {
		return nil, err
	}
	if _, err = s.conn.ChanSubscribe(subjectWrite, s.commands); err != nil {
		return nil, err
	}
	if _, err = s.conn.ChanSubscribe(subjectAsk, s.requests); err != nil {
		return nil, err
	}
	// The first time in a process, package json takes most of a millisecond to look at the type.
	_, _ = endpoint{Started: time.Now().UTC()}.encode()
	return s, s.conn.Flush() // the server knows of both
}

// close lets the last answers leave, then ends server and connection.
func (s *station) close() error {
	if s.conn != nil {
		// The last answers reach the server; it sends them on while it closes.
		_ = s.conn.FlushTimeout(100 * time.Millisecond)
	}
	// Before the connection: a server without our subscriptions would answer
	// followers that nobody is there, instead of going away.
	err := s.server.Close()
	if s.conn != nil {
		s.conn.Close()
	}
	return err
}
