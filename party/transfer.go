package party

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

// errGone: the leader has forgotten a transfer that was idle for too long.
var errGone = errors.New("party: transfer forgotten")

// transferIdle is how long a transfer may rest before the leader forgets it: its
// follower died or is stopped. One that goes on begins again, unseen.
const transferIdle = 30 * time.Second

// transfers are the requests and replies under way that are too large for one
// message. Each piece is asked for, or acknowledged, before the next is sent, so
// a follower that stops has at most one piece in the server.
type transfers struct {
	mu   sync.Mutex
	up   map[uploadKey]*transfer
	down map[uint64]*transfer
	next uint64

	swept time.Time // when sweep last ran
}

type uploadKey struct {
	origin   apply.Origin
	conn, id uint64
}

type transfer struct {
	data  []byte
	total uint64 // of an upload
	used  time.Time
}

// part adds a piece to an upload and returns the whole once it is complete.
func (t *transfers) part(body []byte) (whole []byte, err error) {
	var p uploadPart
	if err := p.decode(body); err != nil {
		return nil, err
	}
	key := uploadKey{p.Origin, p.Conn, p.ID}
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.up[key]
	if p.Start == 0 {
		u = &transfer{data: make([]byte, 0, p.Total), total: p.Total}
		if t.up == nil {
			t.up = make(map[uploadKey]*transfer)
		}
		t.up[key] = u
	}
	if u == nil || uint64(len(u.data)) != p.Start || u.total != p.Total {
		return nil, fmt.Errorf("%w: upload %d at %d", errGone, p.ID, p.Start)
	}
	u.data = append(u.data, p.Data...)
	u.used = time.Now()
	if uint64(len(u.data)) < p.Total {
		return nil, nil
	}
	delete(t.up, key)
	return u.data, nil
}

// announce keeps a large reply, which is its own from now on, and returns the
// message that says so.
func (t *transfers) announce(reply []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	if t.down == nil {
		t.down = make(map[uint64]*transfer)
	}
	t.down[t.next] = &transfer{data: reply, used: time.Now()}
	l := largeReply{ID: t.next, Total: uint64(len(reply))}
	return l.append(nil)
}

// pull appends the next piece of a large reply to out.
func (t *transfers) pull(body, out []byte) ([]byte, error) {
	var p pullRequest
	if err := p.decode(body); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.down[p.ID]
	if d == nil || p.Start > uint64(len(d.data)) {
		return nil, fmt.Errorf("%w: reply %d at %d", errGone, p.ID, p.Start)
	}
	d.used = time.Now()
	piece := d.data[p.Start:min(p.Start+chunk-16, uint64(len(d.data)))]
	if len(piece) == 0 {
		delete(t.down, p.ID)
	}
	return append(appendHeader(out, msgPiece), piece...), nil
}

// sweep forgets what nobody has come for.
func (t *transfers) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.swept
	t.swept = now
	if now.Sub(last) > 2*transferIdle {
		return // this process was stopped itself
	}
	for k, u := range t.up {
		if now.Sub(u.used) > transferIdle {
			delete(t.up, k)
		}
	}
	for k, d := range t.down {
		if now.Sub(d.used) > transferIdle {
			delete(t.down, k)
		}
	}
}

// A request that is longer than chunk is sent as parts of the same upload.
type uploadPart struct {
	Origin       apply.Origin
	Conn, ID     uint64
	Total, Start uint64 // length of the whole, where this part begins
	Data         []byte
}

func (p *uploadPart) append(dst []byte) []byte {
	dst = appendHeader(dst, msgPart)
	dst = append(dst, p.Origin[:]...)
	for _, v := range []uint64{p.Conn, p.ID, p.Total, p.Start} {
		dst = binary.AppendUvarint(dst, v)
	}
	return append(dst, p.Data...)
}

func (p *uploadPart) decode(b []byte) error {
	r := reader{b: b}
	r.fixed(p.Origin[:])
	for _, v := range []*uint64{&p.Conn, &p.ID, &p.Total, &p.Start} {
		*v = r.uvarint()
	}
	p.Data = r.b
	if r.bad || p.Total > maxRequest || p.Start > p.Total || uint64(len(p.Data)) > p.Total-p.Start {
		return fmt.Errorf("%w: bad part", errWire)
	}
	return nil
}

// largeReply announces a reply that has to be pulled in pieces.
type largeReply struct{ ID, Total uint64 }

func (l *largeReply) append(dst []byte) []byte {
	dst = appendHeader(dst, msgLarge)
	dst = binary.AppendUvarint(dst, l.ID)
	return binary.AppendUvarint(dst, l.Total)
}

func (l *largeReply) decode(b []byte) error {
	r := reader{b: b}
	l.ID, l.Total = r.uvarint(), r.uvarint()
	if l.Total > maxReply {
		r.bad = true
	}
	return r.err()
}

// pullRequest asks for the piece of reply ID that begins at Start. At the end of
// the reply (Start == its length) it lets the leader forget it.
type pullRequest struct{ ID, Start uint64 }

func (p *pullRequest) append(dst []byte) []byte {
	dst = appendHeader(dst, msgPull)
	dst = binary.AppendUvarint(dst, p.ID)
	return binary.AppendUvarint(dst, p.Start)
}

func (p *pullRequest) decode(b []byte) error {
	r := reader{b: b}
	p.ID, p.Start = r.uvarint(), r.uvarint()
	return r.err()
}
