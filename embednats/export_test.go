package embednats

import (
	"net"
	"time"
)

// SetLimits replaces the bytes that may wait for one follower, how long it may take nothing when it has reached
// them, and the time that Close lets queues drain.
// To be called before Listen.
func SetLimits(s *Server, queue int, patience, drain time.Duration) {
	s.queueLimit, s.patience, s.drain = queue, patience, drain
}

// Clients counts the clients of the embedded server, the in-process ones too.
func Clients(s *Server) int { return s.ns.NumClients() }

// HasPort reports whether the embedded server has a TCP listener.
func HasPort(s *Server) bool { return s.ns.Addr() != nil }

// WriteUntilFull writes to c as a follower does, until that fails.
func WriteUntilFull(c net.Conn, limit int, patience time.Duration) error {
	o := newOutlet(c, limit, waitWhenFull(patience))
	defer o.close()
	b := make([]byte, 100_000)
	for {
		if err := o.write(b); err != nil {
			return err
		}
	}
}
