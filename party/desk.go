package party

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"
)

// desk answers what followers ask for, other than small writes: a few workers
// share one queue, so that a read which has to go to the disk holds up nobody
// else's.
type desk struct {
	l         *leader
	in        chan *nats.Msg
	transfers transfers
}

func newDesk(l *leader) *desk {
	return &desk{l: l, in: l.station.requests}
}

func (d *desk) start(wg *sync.WaitGroup) {
	for range max(4, runtime.GOMAXPROCS(0)) {
		wg.Go(func() { d.work(wg) })
	}
}

func (d *desk) work(wg *sync.WaitGroup) {
	var out, scratch []byte
	for {
		select {
		case <-d.l.ctx.Done():
			return
		case m := <-d.in:
			if d.l.machine.Applied() < d.l.word.Committed() {
				// The state is behind, as a term begins or because Pebble is slow, perhaps
				// for long. Whoever reads has to wait; those who only want to join have not.
				wg.Go(func() { d.handle(m, m.Data, nil, nil) })
				continue
			}
			out, scratch = d.handle(m, m.Data, out[:0], scratch)
			if cap(out) > chunk {
				out = nil
			}
			if cap(scratch) > chunk {
				scratch = nil
			}
		}
	}
}

// handle answers one request, whose whole bytes are data. out and scratch are
// buffers for the reply and for values, returned for the next.
func (d *desk) handle(m *nats.Msg, data, out, scratch []byte) ([]byte, []byte) {
	t, body, err := openMessage(data)
	if err == nil {
		switch t {
		case msgHello:
			out, err = d.hello(body, out)
		case msgRead:
			out, scratch, err = d.read(body, out, scratch)
		case msgCheckpoint:
			d.checkpoint(m, body)
			return out, scratch
		case msgStatus:
			out, err = d.status(out)
		case msgWait:
			if err = d.wait(m, body); err == nil {
				return out, scratch // it is answered when there is something
			}
		case msgCursors:
			out, err = d.l.cursors(d.l.ctx, appendHeader(out, msgCursorList))
			err = termOver(err)
		case msgTrim:
			d.l.work.Go(func() { d.trim(m, body) }) // it waits for a flush
			return out, scratch
		case msgPull:
			out, err = d.transfers.pull(body, out)
		case msgPart:
			var whole []byte
			if whole, err = d.transfers.part(body); err == nil && whole != nil {
				return d.assembled(m, whole, out, scratch)
			}
			out = appendHeader(out, msgAck)
		case msgIterSeek, msgIterMore, msgIterClose:
			if err = d.l.scans.handle(t, body); err == nil && len(data) == len(m.Data) {
				return out, scratch // pages are the answer
			}
			out = appendHeader(out, msgAck) // a key was too large for one message
		default:
			err = fmt.Errorf("%w: request type %d", errWire, t)
		}
	}
	if errors.Is(err, errLost) {
		return out, scratch // the connection ends in a moment, and the request is sent again
	}
	if err != nil {
		out = appendError(appendHeader(out[:0], msgError), err)
	}
	return d.reply(m, out), scratch
}

// assembled handles a request that came in parts.
func (d *desk) assembled(m *nats.Msg, whole, out, scratch []byte) ([]byte, []byte) {
	t, _, err := openMessage(whole)
	if err == nil && t == msgPart {
		err = fmt.Errorf("%w: parts within parts", errWire)
	}
	if err == nil && t != msgWrite {
		return d.handle(m, whole, out, scratch)
	}
	var j *job
	if err == nil {
		j, err = decodeJob(whole, d.l.log.ID(), func(b []byte) { _ = d.reply(m, b) })
	}
	if errors.Is(err, errLost) {
		return out, scratch
	}
	if err != nil {
		_ = d.reply(m, appendError(appendHeader(nil, msgError), err))
		return out, scratch
	}
	select {
	case d.l.seq.local <- j:
	default:
		// The sequencer waits for the disk or for Pebble. Those who ask for other
		// things need not.
		d.l.work.Go(func() {
			select {
			case d.l.seq.local <- j:
			case <-d.l.ctx.Done():
			}
		})
	}
	return out, scratch
}

// reply sends a reply, or its announcement when it does not fit one message. It
// keeps b then, and returns nil for the next reply, else b.
func (d *desk) reply(m *nats.Msg, b []byte) (next []byte) {
	next = b
	if len(b) > chunk {
		b, next = d.transfers.announce(b), nil
	}
	if err := m.Respond(b); err != nil && d.l.ctx.Err() == nil {
		d.l.db.log.Warn("party: reply", "err", err)
	}
	return next
}

func (d *desk) hello(body, out []byte) ([]byte, error) {
	var h helloRequest
	if err := h.decode(body); err != nil {
		return nil, err
	}
	o := d.l.db.opts.Pebble
	if h.Comparer != o.Comparer.Name {
		return nil, fmt.Errorf("%w: this process brings comparer %q, the database has %q", ErrIncompatible, h.Comparer, o.Comparer.Name)
	}
	if h.Merger != o.Merger.Name {
		return nil, fmt.Errorf("%w: this process brings merger %q, the database has %q", ErrIncompatible, h.Merger, o.Merger.Name)
	}
	w := welcome{Term: d.l.term, PID: uint64(os.Getpid()), Database: d.l.log.ID(), Committed: d.l.word.Committed()}
	return w.append(out), nil
}

func (d *desk) read(body, out, scratch []byte) (_, _ []byte, err error) {
	id, keys, err := decodeKeys(body)
	if err != nil {
		return nil, scratch, err
	}
	if !d.l.gate.enter() {
		return nil, scratch, errLost
	}
	defer d.l.gate.exit()
	if err := d.l.current(d.l.ctx); err != nil {
		return nil, scratch, termOver(err)
	}
	out = appendHeader(out, msgValues)
	out = binary.AppendUvarint(out, id)
	out = binary.AppendUvarint(out, uint64(len(keys)))
	var room readRoom
	var mark valueMark
	fits := func(size int) bool {
		mark = room.take(size)
		return mark == valuePresent
	}
	for _, k := range keys {
		if room.full {
			out = append(out, byte(valueLater))
			continue
		}
		scratch, err = d.l.machine.GetIf(scratch[:0], k, fits)
		switch {
		case errors.Is(err, pebble.ErrNotFound):
			out = append(out, byte(valueAbsent))
		case err != nil:
			out = append(out, byte(valueError)) // this key's, and nobody else's
			out = appendError(out, err)
		default:
			if out = append(out, byte(mark)); mark == valuePresent {
				out = appendBytes(out, scratch)
			}
		}
	}
	return out, scratch, nil
}

// readRoom bounds the reply to a bundle of reads, whose keys say nothing of the
// size of their values: one value of any size, and readBytes of those that fit.
type readRoom struct {
	used   int
	large  bool // the one of any size is there
	passed int  // bytes of large values that found no room
	full   bool // nothing more is looked at
}

const (
	readBytes = 1 << 20
	// largeValue is from how many bytes on a value that found no room is passed
	// over, so that small ones behind it have not to wait for it,
	largeValue = 64 << 10
	// passBytes is how much of that is looked up in vain for one bundle.
	passBytes = 32 << 20
)

// take makes room for a value of so many bytes, or says why there is none.
func (r *readRoom) take(size int) valueMark {
	switch {
	case r.used+size <= readBytes:
		r.used += size
	case !r.large:
		r.large = true
	case size >= largeValue:
		r.passed += size
		r.full = r.passed >= passBytes
		return valueLarge
	default:
		r.full = true
		return valueLater
	}
	return valuePresent
}

// termOver turns the end of the term's context into errLost.
func termOver(err error) error {
	if errors.Is(err, context.Canceled) {
		return errLost
	}
	return err
}

func (d *desk) wait(m *nats.Msg, body []byte) error {
	var w waitRequest
	if err := w.decode(body, d.l.db.opts.Pebble.Comparer); err != nil {
		return err
	}
	d.l.notifier.add(waiter{origin: w.Origin}, &wait{id: w.ID, after: w.After, unacked: w.Unacked, ranges: w.Ranges, tell: func(n notice) {
		_ = m.Respond(appendNotice(nil, w.ID, n)) // if it is lost, so is the connection
	}})
	return nil
}

func (d *desk) status(out []byte) ([]byte, error) {
	s := d.l.status()
	return s.append(out), nil
}

func (l *leader) status() leaderStatus {
	return leaderStatus{
		Term: l.term, PID: uint64(os.Getpid()), Committed: l.word.Committed(),
		Applied: l.machine.Applied(), FirstSeq: l.log.First(), Followers: uint64(l.station.server.Followers()),
		Iterators: uint64(l.scans.count()),
	}
}
