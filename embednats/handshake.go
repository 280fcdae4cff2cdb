package embednats

import (
	"bytes"
	"fmt"
	"strings"
)

// handshake stands in for the server while nats.go connects. That waits for an INFO before it says who it is, and then for
// a PONG before it lets anybody use the connection: two round trips to a process that has just begun to lead, and is wanted
// for better things. The server is one of this package, so both are known: nats.go gets them from here, and what is sent
// through the new connection follows its CONNECT. The server's own INFO is the first that arrives from it, and replaces this
// one, as nats.go allows at any time.
type handshake struct {
	greeting *strings.Reader // what nats.go is still to be told
	asked    bool            // the PING of the handshake was taken out
}

const (
	ping = "PING\r\n"
	pong = "PONG\r\n"
)

func newHandshake() handshake {
	info := fmt.Sprintf(`INFO {"proto":1,"headers":true,"max_payload":%d}`+"\r\n", defaultMaxPayload)
	return handshake{greeting: strings.NewReader(info + pong)}
}

// read reads from the greeting, 0 bytes when that is over.
func (h *handshake) read(p []byte) int {
	n, _ := h.greeting.Read(p) // the end of it is not that of the connection
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
