package party

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// Messages of Trim.
const (
	msgTrim    msgType = 42 // sequence number → msgTrimmed
	msgTrimmed msgType = 43 // sequence number
)

// Trim removes from the log what is before the sequence number before, whatever
// Options.Retention and named subscriptions want kept, and returns the first
// number that is still there afterwards. It removes whole segments, of about 2
// MiB, and never the one that is written to, so first may be less than before;
// it is more if what it asks to remove is gone already. Subscriptions that have
// not read what is removed fail with a *CompactedError; nothing else depends on
// it, for Pebble is made to flush first.
//
// Trim waits for that flush, and for a leader if there is none. After an error
// some of it may have been removed. ErrDiskFull: Pebble has no room to flush.
func (db *DB) Trim(ctx context.Context, before uint64) (first uint64, err error) {
	for {
		s, err := db.route(ctx)
		if err != nil {
			return 0, db.explain(err)
		}
		if s.leader != nil {
			first, err = s.leader.trim(ctx, before)
		} else {
			first, err = s.remote.trim(ctx, before)
		}
		if !errors.Is(err, errLost) {
			return first, db.explain(wrapError(err))
		}
		if err := db.leave(ctx, s); err != nil { // trimming twice is as good as once
			return 0, db.explain(err)
		}
	}
}

func (l *leader) trim(ctx context.Context, before uint64) (first uint64, err error) {
	if !l.gate.enter() {
		return 0, errLost
	}
	defer l.gate.exit()
	// The gate is waited for when the term ends.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(errLost) })()
	if err := l.current(ctx); err != nil { // what is not applied is not flushed
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, err
	}
	if err := l.machine.Flush(ctx.Done()); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	durable, err := l.machine.Durable()
	if err == nil {
		err = l.log.Retain(eventlog.Retention{Before: before}, durable)
	}
	if errors.Is(err, eventlog.ErrClosed) {
		err = errLost
	}
	if err != nil {
		return 0, fmt.Errorf("party: trim the log: %w", err)
	}
	return l.log.First(), nil
}

func (r *remote) trim(ctx context.Context, before uint64) (first uint64, err error) {
	t, body, err := r.ask(ctx, binary.AppendUvarint(appendHeader(nil, msgTrim), before))
	if err != nil {
		return 0, err
	}
	rd := reader{b: body}
	if first = rd.uvarint(); t != msgTrimmed {
		return 0, fmt.Errorf("%w: reply type %d to a trim", errWire, t)
	}
	return first, rd.err()
}

// trim answers a msgTrim.
func (d *desk) trim(m *nats.Msg, body []byte) {
	r := reader{b: body}
	before := r.uvarint()
	err := r.err()
	var first uint64
	if err == nil {
		first, err = d.l.trim(d.l.ctx, before)
	}
	if err = termOver(err); errors.Is(err, errLost) {
		return // the connection ends in a moment
	}
	out := binary.AppendUvarint(appendHeader(nil, msgTrimmed), first)
	if err != nil {
		out = appendError(appendHeader(nil, msgError), err)
	}
	d.reply(m, out)
}
