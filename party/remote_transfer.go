package party

import (
	"context"
	"errors"
	"fmt"
)

// upload sends a bundle in parts; the reply, or the failure, goes to the slot.
func (r *remote) upload(s *wireSlot, data []byte) {
	b, err := r.parts(r.ctx, data)
	if err == nil {
		var t msgType
		var body []byte
		if t, body, err = openMessage(b); err == nil && t == msgLarge {
			b, err = r.download(r.ctx, body)
		}
	}
	if errors.Is(err, context.Canceled) {
		err = errLost
	}
	s.big <- reply{b, err}
}

// parts sends a large request in parts and returns the reply to the last.
func (r *remote) parts(ctx context.Context, data []byte) ([]byte, error) {
	const room = 64 // for the part's own header
	id := r.db.uploads.Add(1)
again:
	for start := 0; ; {
		end := min(start+chunk-room, len(data))
		p := uploadPart{Origin: r.db.origin, Conn: r.conn, ID: id, Total: uint64(len(data)), Start: uint64(start), Data: data[start:end]}
		b, err := r.request(ctx, p.append(make([]byte, 0, chunk)))
		if err != nil {
			return nil, err
		}
		t, body, err := openMessage(b)
		if err != nil {
			return nil, err
		}
		if t == msgError {
			rd := reader{b: body}
			if err := rd.error(); !errors.Is(err, errGone) {
				return nil, err
			}
			// This process was stopped for so long that the leader gave up on it.
			// Nothing of the request was handled.
			goto again
		}
		if end == len(data) {
			return b, nil
		}
		start = end
	}
}

// download fetches a large reply in pieces.
func (r *remote) download(ctx context.Context, announcement []byte) ([]byte, error) {
	var l largeReply
	if err := l.decode(announcement); err != nil {
		return nil, err
	}
	data := make([]byte, 0, min(l.Total, maxRequest)) // no reply has a reason to be larger
	for {
		p := pullRequest{ID: l.ID, Start: uint64(len(data))}
		b, err := r.request(ctx, p.append(nil))
		if err != nil {
			return nil, err
		}
		t, body, err := openMessage(b)
		if err != nil {
			return nil, err
		}
		switch {
		case t == msgError:
			rd := reader{b: body}
			return nil, rd.error()
		case t != msgPiece || uint64(len(data)+len(body)) > l.Total:
			return nil, fmt.Errorf("%w: reply type %d to a pull", errWire, t)
		case len(body) == 0:
			if uint64(len(data)) != l.Total {
				return nil, fmt.Errorf("%w: large reply ends early", errWire)
			}
			return data, nil
		}
		data = append(data, body...)
	}
}
