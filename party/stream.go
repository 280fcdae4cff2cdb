package party

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// stream is where an iterator of a follower gets its pages from: the leader sends
// them ahead, as many as it is allowed to. There is no goroutine: the iterator
// takes them right from the connection's reader.
type stream struct {
	// Immutable.
	r        *remote
	keysOnly bool
	bounds   snapshot.Bounds
	moved    *atomic.Bool // set by the iterator when it moves
	touching *time.Timer
	closed   atomic.Bool

	// Owned by the iterator.
	*line   // the inbox
	opened  bool
	last    bool   // the last page of the walk has come
	got     uint64 // pages of the walk
	allowed uint64 // that the leader may send
	parts   []byte // of one pair
	pairs   []snapshot.Pair
}

// window is how many pages may be under way for one iterator at most, in the
// leader, the server and here: 2 MiB.
const window = 16

// stream has the leader fix a point in time and returns the first page of a walk.
func (r *remote) stream(ctx context.Context, b snapshot.Bounds, at *snapshot.Position, moved *atomic.Bool) (source, page, error) {
	line, err := r.line()
	if err != nil {
		return nil, page{}, errLost // the connection has ended
	}
	s := &stream{r: r, line: line, keysOnly: b.KeysOnly, bounds: b, moved: moved}
	s.touching = time.AfterFunc(2*iterTouch, s.touch)
	s.touching.Reset(iterTouch) // now that touch can see it
	if at == nil {
		at = &snapshot.Position{}
	}
	first, err := s.seek(ctx, *at)
	if err != nil {
		s.close()
		return nil, page{}, err
	}
	return s, first, nil
}

func (s *stream) seek(ctx context.Context, at snapshot.Position) (page, error) {
	if s.r.ctx.Err() != nil {
		return page{}, errLost
	}
	s.walk++
	s.got, s.allowed, s.parts, s.last = 0, 1, nil, false
	m := iterSeek{Inbox: s.inbox, Walk: s.walk, Allowed: s.allowed, At: at, Open: !s.opened, Bounds: s.bounds}
	s.opened = true
	b := m.append(make([]byte, 0, 128))
	if len(b) <= chunk {
		_ = s.r.nc.PublishRequest(subjectAsk, s.inbox, b) // if the connection is gone, receive says so
		return s.receive(ctx)
	}
	t, _, err := s.r.ask(ctx, b)
	if err == nil && t != msgAck {
		err = fmt.Errorf("%w: reply type %d to a seek", errWire, t)
	}
	if err != nil {
		return page{}, err
	}
	return s.receive(ctx)
}

func (s *stream) next(ctx context.Context) (page, error) {
	if len(s.in) == 0 && s.r.ctx.Err() != nil {
		return page{}, errLost
	}
	s.ahead()
	return s.receive(ctx)
}

// ahead lets the leader send on, the more the longer the walk is.
func (s *stream) ahead() {
	room := min(2*s.got, window)
	if !s.last && s.got+room >= s.allowed+max(1, room/2) {
		s.allowed = s.got + room
		s.tell()
	}
}

// tell tells the leader how many pages it may send.
func (s *stream) tell() {
	m := iterMore{Inbox: s.inbox, Walk: s.walk, Allowed: s.allowed}
	_ = s.r.nc.Publish(subjectAsk, m.append(make([]byte, 0, 64)))
}

// touch tells the leader that an iterator which has enough pages for long is in
// use. It runs beside the iterator.
func (s *stream) touch() {
	if s.closed.Load() || s.r.ctx.Err() != nil {
		return
	}
	if s.moved.Swap(false) {
		m := iterMore{Inbox: s.inbox} // allows nothing, of no walk
		_ = s.r.nc.Publish(subjectAsk, m.append(nil))
	}
	s.touching.Reset(iterTouch)
}

// receive waits for the next page of the walk.
func (s *stream) receive(ctx context.Context) (page, error) {
	for {
		m, err := s.wait(ctx)
		if err != nil {
			return page{}, err
		}
		t, body, err := openMessage(m.Data)
		if err != nil {
			return page{}, err
		}
		if t == msgError {
			r := reader{b: body}
			return page{}, r.error()
		}
		var p iterPage
		if err = p.decode(body); err == nil && t != msgIterPage {
			err = fmt.Errorf("%w: type %d to an iterator", errWire, t)
		}
		if err != nil {
			return page{}, err
		}
		if p.Walk != s.walk {
			continue
		}
		if p.Err == nil && p.Index != s.got {
			p.Err = fmt.Errorf("%w: page %d where %d was expected", errWire, p.Index, s.got)
		}
		if p.Err != nil {
			return page{}, p.Err
		}
		s.got++
		s.last = p.End == snapshot.Last
		if p.End == snapshot.Part || len(s.parts) > 0 {
			if len(s.parts)+len(p.Data) > maxRequest {
				return page{}, fmt.Errorf("%w: a pair of more than %d bytes", errWire, maxRequest)
			}
			s.parts = append(s.parts, p.Data...)
		}
		if p.End == snapshot.Part {
			s.ahead()
			continue
		}
		return s.take(&p)
	}
}

func (s *stream) take(p *iterPage) (_ page, err error) {
	data := p.Data
	if len(s.parts) > 0 {
		data, s.parts = s.parts, nil
	}
	s.pairs, err = snapshot.DecodePage(s.pairs[:0], data, s.keysOnly)
	if err == nil && len(s.pairs) == 0 && p.End != snapshot.Last {
		err = errors.New("an empty page that is not the last")
	}
	if err != nil {
		return page{}, fmt.Errorf("%w: %w", errWire, err)
	}
	return page{pairs: s.pairs, last: p.End == snapshot.Last}, nil
}

// wait waits for a message. What has arrived comes before the end of the
// connection.
func (s *stream) wait(ctx context.Context) (*nats.Msg, error) {
	var m *nats.Msg
	select {
	case m = <-s.in:
	default:
		select {
		case m = <-s.in:
		case <-ctx.Done():
			return nil, s.r.db.explain(ctx.Err())
		case <-s.r.ctx.Done():
			select {
			case m = <-s.in:
			default:
				return nil, s.cut()
			}
		}
	}
	if noResponders(m) {
		s.r.cancel()
		return nil, s.cut()
	}
	return m, nil
}

// cut is the error of an iterator that loses the leader while it waits for a page.
// One that finds it gone has nothing under way, and goes on with the next.
func (s *stream) cut() error {
	if s.r.db.opts.NoRetry {
		return ErrLeaderLost
	}
	return errLost
}

func (s *stream) close() {
	s.closed.Store(true)
	s.touching.Stop()
	if s.r.ctx.Err() != nil {
		return
	}
	quiet := s.last || s.got == s.allowed
	go func() { // nobody waits for an answer, so the caller need not wait for the socket
		m := iterClose{Inbox: s.inbox, Walk: s.walk}
		_ = s.r.nc.Publish(subjectAsk, m.append(make([]byte, 0, 64)))
		s.r.leave(s.line, quiet) // not before: what the next one sends must come behind it
	}()
}
