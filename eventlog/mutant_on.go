//go:build mutation

package eventlog

import (
	"sync/atomic"
	"time"
)

// loseLastFrame wipes the last frame of the segment if it is an entry, and what
// is known of its durability.
func (l *Log) loseLastFrame(s *segment) {
	b, err := readFrom(l.file, headerSize)
	if err != nil {
		panic(err)
	}
	var f, last frame
	at := int64(0)
	for decodeFrame(b[at:], s.crc, &f) == frameValid {
		last = f
		at += f.size
	}
	if at == 0 || last.kind != KindEntry {
		return
	}
	if err := writeZeros(l.file, headerSize+at-last.size, headerSize+at); err != nil {
		panic(err)
	}
	l.o.DurableHint = min(l.o.DurableHint, last.seq-1)
}

// setLate sets what is committed after a millisecond.
func (c *Commit) setLate(v uint64) {
	time.AfterFunc(time.Millisecond, func() {
		if v > c.Committed() { // timers may overtake each other; by so little it does not matter
			c.store(func(w *commitWords) *atomic.Uint64 { return w.committed }, v)
		}
	})
}
