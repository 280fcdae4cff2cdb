package apply

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// Internal: what is in a memory shows only by how commands are judged.

func FuzzDecodeMemory(f *testing.F) {
	var m memory
	m.sessions.byOrigin = make(map[Origin]*session)
	id := eventlog.ID{1, 2, 3}
	f.Add(m.encode(nil, id, 0, eventlog.Position{}))
	for i := range uint64(40) {
		m.sessions.record(Origin{byte(i % 5)}, i+1, i/2, 100+3*i/2)
		m.cursors.move(cursorMove{Cursor: Cursor{fmt.Sprint("cursor ", i%3), i}, drop: i%4 == 3})
	}
	m.sessions.floor, m.nanos = 7, -1
	at := eventlog.Position{Segment: 1, Offset: 4096, Last: 150, Term: 3, Limit: 200}
	whole := m.encode(nil, id, 160, at)
	if got := MemoryPosition(whole); got != at {
		f.Fatalf("position %+v, was %+v", got, at)
	}
	f.Add(whole)
	f.Add(append(bytes.Clone(whole), "of a longer one before"...))
	f.Add(whole[:len(whole)-1])
	f.Add(make([]byte, memoryHead+memoryFixed))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, id, seq, err := decodeMemory(src)
		at := MemoryPosition(src)
		if err != nil {
			return
		}
		again := m.encode(nil, id, seq, at)
		m2, id2, seq2, err := decodeMemory(again)
		if err != nil || id2 != id || seq2 != seq || !bytes.Equal(m2.encode(nil, id2, seq2, MemoryPosition(again)), again) {
			t.Fatalf("%+v became %+v, %v", m, m2, err)
		}
	})
}

func TestMemory_IsWhatWasWritten(t *testing.T) {
	var m memory
	m.sessions.byOrigin = make(map[Origin]*session)
	for i := range uint64(3 * MaxOrigins / 2) { // so that some are forgotten
		o := Origin{byte(i), byte(i >> 8)}
		m.sessions.record(o, i+1, i, 1000+i)
		m.sessions.record(o, i+5, i, 9000+i)
	}
	m.cursors.move(cursorMove{Cursor: Cursor{"gone", 1}})
	m.cursors.move(cursorMove{Cursor: Cursor{"stays", 2}})
	m.cursors.move(cursorMove{Cursor: Cursor{"gone", 0}, drop: true})
	m.nanos = 12345
	got, id, seq, err := decodeMemory(m.encode([]byte("before"), eventlog.ID{9}, 77, eventlog.Position{})[len("before"):])
	if err != nil || id != (eventlog.ID{9}) || seq != 77 {
		t.Fatal(id, seq, err)
	}
	if len(got.sessions.slots) != MaxOrigins || got.sessions.floor == 0 {
		t.Fatalf("%d origins, floor %d", len(got.sessions.slots), got.sessions.floor)
	}
	for o, s := range m.sessions.byOrigin {
		g := got.sessions.byOrigin[o]
		if g == nil || fmt.Sprintf("%+v", *g) != fmt.Sprintf("%+v", *s) {
			t.Fatalf("origin %v: %+v, want %+v", o, g, s)
		}
	}
	if fmt.Sprint(got.cursors.slots) != fmt.Sprint(m.cursors.slots) || got.sessions.floor != m.sessions.floor || got.nanos != m.nanos {
		t.Fatalf("%v %d %d", got.cursors.slots, got.sessions.floor, got.nanos)
	}
}
