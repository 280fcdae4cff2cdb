package embednats

import (
	"bytes"
	"fmt"
	"io"
)

// handshake stands in for the server while nats.go connects. That waits for an INFO before it says who it is, and then for
// a PONG before it lets anybody use the connection: two round trips to a process that has just begun to lead, and is wanted
// for better things. Both are known, as the server is one of this package; so nats.go gets them from here, and what is
// sent through the new connection goes out behind the CONNECT. The server's own INFO corrects the guess when it comes, as
// one that comes late may, before anything else from the server.
type handshake struct {
	greeting io.Reader // what nats.go is still to be told
	asked    bool      // the PING of the handshake was taken out
}

const (
	ping = "PING\r\n"
	pong = "PONG\r\n"
)

func newHandshake() handshake {
	info := fmt.Sprintf(`INFO {"proto":1,"headers":true,"max_payload":%d}`+"\r\n", defaultMaxPayload)
	return handshake{greeting: bytes.NewReader([]byte(info + pong))}
}

// read reads from the greeting, 0 bytes when that is over.
func (h *handshake) read(p []byte) int {
	n, _ := h.greeting.Read(p) // its end is not the connection's
	return n
}

// withoutPing returns what of p is for the server. The first PING, which ends the handshake, is answered already;
// another PONG would be taken for the answer to the next.
func (h *handshake) withoutPing(p []byte) []byte {
	if h.asked || !bytes.HasSuffix(p, []byte(ping)) {
		return p
	}
	h.asked = true
	return p[:len(p)-len(ping)]
}
