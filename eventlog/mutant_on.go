//go:build mutation

package eventlog

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
