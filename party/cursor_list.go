package party

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Messages of cursors.
const (
	msgCursors    msgType = 44 // → msgCursorList
	msgCursorList msgType = 45
)

// CursorStatus is a named subscription as the database remembers it.
type CursorStatus struct {
	Name  string
	Acked uint64 // sequence number up to which it was acknowledged, or nothing concerned it
	Lag   uint64 // how many sequence numbers were committed since
}

// cursorStatus is what Status says of cursors.
func (db *DB) cursorStatus(ctx context.Context) (list []CursorStatus, err error) {
	all, committed, err := db.cursors(ctx)
	for name, seq := range all {
		list = append(list, CursorStatus{Name: name, Acked: seq, Lag: committed - min(seq, committed)})
	}
	slices.SortFunc(list, func(a, b CursorStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// cursors returns where all cursors stand and up to where the log is committed, at
// some moment after the call.
func (db *DB) cursors(ctx context.Context) (all map[string]uint64, committed uint64, err error) {
	for {
		s, err := db.route(ctx)
		if err != nil {
			return nil, 0, db.explain(err)
		}
		var body []byte
		if s.leader != nil {
			body, err = s.leader.cursors(ctx, nil)
		} else {
			var t msgType
			t, body, err = s.remote.ask(ctx, appendHeader(nil, msgCursors))
			if err == nil && t != msgCursorList {
				err = fmt.Errorf("%w: reply type %d", errWire, t)
			}
		}
		if err == nil {
			return decodeCursors(body)
		}
		if errors.Is(err, errLost) {
			err = db.leave(ctx, s)
		}
		if err != nil {
			return nil, 0, db.explain(err)
		}
	}
}

// cursors appends the body of a msgCursorList.
func (l *leader) cursors(ctx context.Context, dst []byte) ([]byte, error) {
	if !l.gate.enter() {
		return nil, errLost
	}
	defer l.gate.exit()
	committed := l.word.Committed()
	if err := l.machine.WaitJudged(ctx, committed); err != nil {
		return nil, err
	}
	all := l.machine.Cursors()
	dst = binary.AppendUvarint(dst, committed)
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, c := range all {
		dst = appendBytes(dst, []byte(c.Name))
		dst = binary.AppendUvarint(dst, c.Seq)
	}
	return dst, nil
}

func decodeCursors(body []byte) (all map[string]uint64, committed uint64, err error) {
	r := reader{b: body}
	committed = r.uvarint()
	all = make(map[string]uint64)
	for range r.count() {
		name := string(r.bytes())
		all[name] = r.uvarint()
		if r.bad {
			break
		}
	}
	return all, committed, r.err()
}
