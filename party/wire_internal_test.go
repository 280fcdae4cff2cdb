package party

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

func wireSeeds() [][]byte {
	origin := apply.Origin{1, 2, 3}
	w := writeRequest{Origin: origin, Conn: 4, ID: 5, Low: 6}
	write := w.appendHead(nil, 2)
	for _, c := range []apply.Command{
		{Number: 6, Since: 7, Sync: true, Repr: apply.ReprSet([]byte("k"), []byte("v"))},
		{Number: 7, Retry: true, Cond: &apply.Condition{Key: []byte("k"), Value: []byte("v")}, Repr: apply.ReprDelete([]byte("k"))},
	} {
		write = apply.AppendCommand(write, &c)
	}
	hello := helloRequest{Comparer: "c", Merger: "m"}
	wel := welcome{Term: 1, PID: 2, Database: eventlog.ID{3}, Committed: 4}
	status := leaderStatus{1, 2, 3, 4, 5, 6, 7}
	part := uploadPart{Origin: origin, Conn: 1, ID: 2, Total: 10, Start: 3, Data: []byte("data")}
	large := largeReply{ID: 1, Total: 2}
	pull := pullRequest{ID: 1, Start: 2}
	values := appendHeader(nil, msgValues)
	values = append(values, 9, 6, byte(valueAbsent), byte(valuePresent), 0, byte(valuePresent), 1, 'v', byte(valueLarge), byte(valueLater), byte(valueError))
	values = appendError(values, ErrTooLarge)
	return [][]byte{
		write, hello.append(nil), wel.append(nil), status.append(nil), part.append(nil), large.append(nil), pull.append(nil), values,
		encodeReads(nil, 8, []*call{{keys: [][]byte{[]byte("a"), {}, []byte("c")}}}),
		appendAnswers(nil, 5, 9, []apply.Answer{{Outcome: apply.OutcomeDone, Seq: 9}, {Outcome: apply.OutcomeRefused, Err: ErrTooLarge}, {Outcome: apply.OutcomeNotSwapped}}),
		appendError(appendHeader(nil, msgError), ErrDiskFull),
		appendHeader(nil, msgAck), {wireMagic, wireVersion + 1, 1}, nil, {0},
		append(appendHeader(nil, msgAnswers), 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	}
}

// FuzzMessage: no message makes a decoder panic or take memory that the message
// does not pay for, and what is decoded encodes to what decodes the same.
func FuzzMessage(f *testing.F) {
	for _, s := range wireSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := openMessage(b)
		if err != nil {
			return
		}
		again := func(name string, encoded []byte, decode func([]byte) error, encode func() []byte) {
			_, body, err := openMessage(encoded)
			if err == nil {
				err = decode(body)
			}
			if err != nil || !bytes.Equal(encode(), encoded) {
				t.Errorf("%s does not survive a round trip: %v", name, err)
			}
		}
		var h helloRequest
		if h.decode(body) == nil {
			again("hello", h.append(nil), h.decode, func() []byte { return h.append(nil) })
		}
		var wel welcome
		if wel.decode(body) == nil {
			again("welcome", wel.append(nil), wel.decode, func() []byte { return wel.append(nil) })
		}
		var s leaderStatus
		if s.decode(body) == nil {
			again("status", s.append(nil), s.decode, func() []byte { return s.append(nil) })
		}
		var p uploadPart
		if p.decode(body) == nil {
			again("part", p.append(nil), p.decode, func() []byte { return p.append(nil) })
		}
		var l largeReply
		if l.decode(body) == nil {
			again("large reply", l.append(nil), l.decode, func() []byte { return l.append(nil) })
		}
		var q pullRequest
		if q.decode(body) == nil {
			again("pull", q.append(nil), q.decode, func() []byte { return q.append(nil) })
		}
		var c checkpointRequest
		if c.decode(body) == nil {
			again("checkpoint", c.append(nil), c.decode, func() []byte { return c.append(nil) })
		}
		var w writeRequest
		encode := func() []byte {
			b := w.appendHead(nil, len(w.Commands))
			for i := range w.Commands {
				b = apply.AppendCommand(b, &w.Commands[i])
			}
			return b
		}
		if w.decode(body) == nil {
			again("write", encode(), w.decode, encode)
		}
		if id, keys, err := decodeKeys(body); err == nil {
			encoded := encodeReads(nil, id, []*call{{keys: keys}})
			_, body, _ := openMessage(encoded)
			if id2, keys2, err := decodeKeys(body); err != nil || id2 != id || len(keys2) != len(keys) {
				t.Errorf("keys do not survive a round trip: %v", err)
			}
		}
		if id, committed, answers, err := decodeAnswers(body); err == nil {
			_, body, _ := openMessage(appendAnswers(nil, id, committed, answers))
			id2, committed2, answers2, err := decodeAnswers(body)
			if err != nil || id2 != id || committed2 != committed || len(answers2) != len(answers) {
				t.Errorf("answers do not survive a round trip: %v", err)
			}
		}
		if _, values, err := decodeValues(body); err == nil && len(values) > len(body) {
			t.Errorf("%d values of %d bytes", len(values), len(body))
		}
		r := reader{b: body}
		_ = r.error()
		var up transfers
		if len(body) < 1<<16 && p.Total < 1<<16 {
			_, _ = up.part(body)
		}
		_, _ = up.pull(body, nil)
	})
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `[]`, `{"magic":"pebbleparty-endpoint","version":3,"directory":"803:2","address":"unix:nats.sock","term":3,"pid":4}`,
		`{"magic":"pebbleparty-endpoint","version":1}`, `{"magic":"pebbleparty-endpoint","version":3,"term":-1}`,
		`{"magic":"pebbleparty-endpoint","version":3,"started":"yesterday"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEndpoint(b)
		if err != nil {
			if e != (endpoint{}) {
				t.Errorf("%+v with %v", e, err)
			}
			return
		}
		if e.Address == "" || e.Version != endpointVersion || e.Magic != endpointMagic {
			t.Errorf("accepted %+v", e)
		}
	})
}

// TestTransfers_ForgottenIsSentAgain: a process that was stopped for long finds
// its large request or reply forgotten, and begins again unseen.
func TestTransfers_ForgottenIsSentAgain(t *testing.T) {
	ctx, cancel := context30(t)
	defer cancel()
	dir := t.TempDir()
	lead, err := Open(ctx, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lead.Close()
	follow, err := Open(ctx, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	tr := &lead.leading.Load().desk.transfers
	under := func(up bool) bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if up {
			return len(tr.up) > 0
		}
		return len(tr.down) > 0
	}
	// forget sweeps once, in the middle of a transfer.
	forget := func(up bool, done <-chan struct{}) {
		for !under(up) {
			select {
			case <-done:
				return
			default:
			}
		}
		later := time.Now().Add(time.Hour)
		tr.mu.Lock()
		tr.swept = later // else it takes this process for one that was stopped, and forgets nothing
		tr.mu.Unlock()
		tr.sweep(later)
	}
	value := make([]byte, 8<<20)
	for _, up := range []bool{true, false} {
		done := make(chan struct{})
		var v []byte
		var err error
		go func() {
			defer close(done)
			if up {
				err = follow.Set(ctx, []byte("k"), value, nil)
			} else {
				v, err = follow.Get(ctx, []byte("k"))
			}
		}()
		forget(up, done)
		<-done
		if err != nil || !up && len(v) != len(value) {
			t.Errorf("up %t: %d bytes, %v", up, len(v), err)
		}
	}
}

// TestDecoders_TinyMessagesTakeLittle: a few bytes that claim great counts or
// lengths make no decoder take memory for them.
func TestDecoders_TinyMessagesTakeLittle(t *testing.T) {
	decoders := map[string]struct {
		head   int // fixed bytes and numbers in front of the count
		decode func(b []byte) error
	}{
		"hello":       {1, func(b []byte) error { return new(helloRequest).decode(b) }},
		"write":       {19, func(b []byte) error { return new(writeRequest).decode(b) }},
		"keys":        {1, func(b []byte) error { _, _, err := decodeKeys(b); return err }},
		"values":      {1, func(b []byte) error { _, _, err := decodeValues(b); return err }},
		"answers":     {2, func(b []byte) error { _, _, _, err := decodeAnswers(b); return err }},
		"error":       {1, func(b []byte) error { r := reader{b: b}; _ = r.error(); return r.err() }},
		"part":        {18, func(b []byte) error { return new(uploadPart).decode(b) }},
		"large reply": {1, func(b []byte) error { return new(largeReply).decode(b) }},
		"part of an upload": {18, func(b []byte) error {
			_, err := new(transfers).part(b)
			return err
		}},
	}
	for name, d := range decoders {
		for _, count := range []uint64{1 << 29, 1 << 31, 1 << 41, 1<<63 - 1, 1<<64 - 1} {
			for _, rest := range []int{0, 1, 300} {
				b := binary.AppendUvarint(make([]byte, d.head), count)
				b = append(b, make([]byte, rest)...)
				// Other goroutines allocate too, but not this much again and again.
				const limit = 256 << 10
				least := uint64(1 << 63)
				var err error
				for range 5 {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					err = d.decode(b)
					runtime.ReadMemStats(&after)
					least = min(least, after.TotalAlloc-before.TotalAlloc)
				}
				if large := name == "large reply" && count <= maxReply; err == nil && !large {
					t.Errorf("%s with a count of %d and %d bytes was accepted", name, count, rest)
				}
				if least > limit {
					t.Errorf("%s with a count of %d and %d bytes took %d bytes", name, count, rest, least)
				}
			}
		}
	}
}
