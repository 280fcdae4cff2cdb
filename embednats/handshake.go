package embednats

import (
	"bytes"
	"fmt"
	"strings"
)

// handshake stands in for the server while nats.go connects. That waits for an INFO before it says who it is, and then for
// a PONG before it lets anybody use the connection: two round trips to a process that has just begun to lead, and is wanted
// for better things. The server is one of this package, so both are known: nats.go gets them from here, and what it says and
// subscribes to leaves with the first request, in one piece. The server's own INFO is the first that arrives from it, and
// replaces this one, as nats.go allows at any time.
type handshake struct {
	greeting *strings.Reader // what nats.go is still to be told
	answered bool            // the PING of the handshake was taken out
	over     bool            // something was asked
	held     []byte          // what leaves with that
}

const (
	connect   = "CONNECT "
	subscribe = "SUB "
	ping      = "PING\r\n"
	pong      = "PONG\r\n"
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

// write returns what is to be sent now that nats.go writes p, which is whole lines.
func (h *handshake) write(p []byte) []byte {
	if h.over {
		return p
	}
	if !h.answered && bytes.HasSuffix(p, []byte(ping)) {
		// Another PONG would be taken for the answer to the next.
		h.answered = true
		p = p[:len(p)-len(ping)]
	}
	h.held = append(h.held, p...)
	for line := range bytes.Lines(p) {
		if !bytes.HasPrefix(line, []byte(connect)) && !bytes.HasPrefix(line, []byte(subscribe)) {
			h.over = true
			p, h.held = h.held, nil
			return p
		}
	}
	return nil
}
