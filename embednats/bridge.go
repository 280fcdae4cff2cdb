package embednats

import (
	"errors"
	"net"
	"time"
)

// Accept errors (no descriptors left, mostly) are tried again after a pause: the followers wait in the backlog meanwhile.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// accept takes in followers until the endpoint is closed.
func (s *Server) accept(ep *endpoint) {
	defer close(s.accepted)
	pause := minAcceptPause
	for {
		sock, err := ep.Accept()
		if err == nil {
			pause = minAcceptPause
			s.admit(sock)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Warn("accept a follower", "err", err, "again in", pause)
		select {
		case <-s.quit:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// admit joins sock to a new client of the server.
func (s *Server) admit(sock net.Conn) {
	pipe, err := s.pipe()
	if err != nil {
		_ = sock.Close()
		return // only ErrClosed or a server that is shutting down
	}
	s.mu.Lock()
	if s.closing { // since s.pipe: cut may already have been round
		s.mu.Unlock()
		_ = sock.Close()
		_ = pipe.Close()
		s.forget(pipe)
		return
	}
	s.conns[sock] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	tune(sock)
	go s.bridge(sock, pipe)
}

// bridge carries bytes both ways until either side ends, and then ends the other.
func (s *Server) bridge(sock, pipe net.Conn) {
	defer s.wg.Done()
	s.followers.Add(1)
	defer s.followers.Add(-1)
	defer s.forget(pipe)
	defer s.forget(sock)
	inbound := make(chan struct{})
	go func() {
		defer close(inbound)
		_ = relay(sock, func(b []byte) error { // the server reads a pipe as soon as it has parsed what it had
			_, err := pipe.Write(b)
			return err
		})
		_ = pipe.Close()
	}()
	if err := s.outbound(sock, pipe); errors.Is(err, errBehind) {
		s.log.Warn("follower cut off", "err", err, "limit", s.queueLimit)
	}
	<-inbound
}

// outbound empties the server's side of the pipe as fast as the server fills it, whatever the follower does: a net.Pipe
// has no buffer, so a server that writes into it waits for us.
func (s *Server) outbound(sock, pipe net.Conn) error {
	o := newOutlet(sock, s.queueLimit, cutWhenFull(s.patience))
	var failed error
	err := relay(pipe, func(b []byte) error {
		failed = o.write(b)
		return failed
	})
	if failed != nil {
		o.close()
	} else {
		o.finish(time.Now().Add(s.drain))
	}
	_ = pipe.Close()
	return err
}

// relay reads from src until that fails, or write does. A connection that carries little costs little memory: the
// buffer grows, up to nats-server's largest single write, when a read fills it.
func relay(src net.Conn, write func([]byte) error) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if n == len(buf) && n < chunkSize {
			buf = make([]byte, min(4*n, chunkSize))
		}
	}
}
