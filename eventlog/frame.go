package eventlog

import (
	"encoding/binary"
	"hash/crc32"
)

// Kind says what a Record is.
type Kind uint8

// The kinds a Reader returns.
const (
	KindEntry Kind = 1 // an entry of Append
	KindTerm  Kind = 2 // the record of StartTerm

	kindReserve Kind = 3
)

// MaxEntry is the longest entry, in bytes.
const MaxEntry = 1<<30 - 64

const (
	frameHeader = 32      // bytes before the payload
	termPayload = 24      // term, prev, unix nanos
	reserveSize = 40      // a whole reserve frame
	maxSeq      = 1 << 62 // far from where adding to a number could wrap
)

// castagnoli is never written after init.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame as it was decoded. payload points into the bytes decoded from.
type frame struct {
	seq     uint64
	synced  uint64
	kind    Kind
	payload []byte
	size    int64 // of the whole frame with its padding
}

type verdict uint8

const (
	frameValid   verdict = iota // complete, its checksum right
	frameShort                  // plausible, but frame.size bytes are needed to say
	frameZero                   // nothing was written here
	frameInvalid                // something else than a frame
)

func frameSize(payload int) int64 { return frameHeader + int64(payload+7)&^7 }

// appendFrame appends a frame with its padding. The seed is the checksum of the segment's header: a frame out of another
// segment, or one that a caller stored inside a payload, is never valid here.
func appendFrame(b []byte, seed uint32, kind Kind, seq, synced uint64, payload []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, synced)
	b = append(b, byte(kind), 0, 0, 0, 0, 0, 0, 0)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[at:], crc32.Update(seed, castagnoli, b[at+4:]))
	for (len(b)-at)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendTermFrame(b []byte, seed uint32, seq, synced, term, prev uint64, nanos int64) []byte {
	var p [termPayload]byte
	binary.LittleEndian.PutUint64(p[0:], term)
	binary.LittleEndian.PutUint64(p[8:], prev)
	binary.LittleEndian.PutUint64(p[16:], uint64(nanos))
	return appendFrame(b, seed, KindTerm, seq, synced, p[:])
}

func appendReserveFrame(b []byte, seed uint32, seq, synced, limit uint64) []byte {
	return appendFrame(b, seed, kindReserve, seq, synced, binary.LittleEndian.AppendUint64(nil, limit))
}

// decodeHeader reads the 32 bytes before the payload into f and says whether a frame could begin like that; a plausible
// one is frameShort with its size.
func decodeHeader(b []byte, f *frame) verdict {
	if len(b) < frameHeader {
		f.size = frameHeader
		return frameShort
	}
	h := (*[frameHeader]byte)(b)
	length := binary.LittleEndian.Uint32(h[4:])
	seq := binary.LittleEndian.Uint64(h[8:])
	synced := binary.LittleEndian.Uint64(h[16:])
	tail := binary.LittleEndian.Uint64(h[24:]) // kind and seven zero bytes
	plausible := length <= MaxEntry && seq < maxSeq
	switch tail {
	case uint64(KindEntry):
		plausible = plausible && seq > synced
	case uint64(KindTerm):
		plausible = plausible && seq > synced && length == termPayload
	case uint64(kindReserve):
		plausible = plausible && seq >= synced && length == 8
	case 0:
		if binary.LittleEndian.Uint64(h[:])|seq|synced == 0 {
			return frameZero
		}
		plausible = false
	default:
		plausible = false
	}
	if !plausible {
		return frameInvalid
	}
	f.seq, f.synced, f.kind, f.size = seq, synced, Kind(tail), frameSize(int(length))
	return frameShort
}

// decodeFrame reads the frame that b begins with into f, which means something when it is frameValid, and its size also
// when it is frameShort.
func decodeFrame(b []byte, seed uint32, f *frame) verdict {
	v := decodeHeader(b, f)
	if v != frameShort || int64(len(b)) < f.size {
		return v
	}
	end := frameHeader + int(binary.LittleEndian.Uint32(b[4:]))
	if crc32.Update(seed, castagnoli, b[4:end]) != binary.LittleEndian.Uint32(b) {
		return frameInvalid
	}
	f.payload = b[frameHeader:end:end]
	if f.kind == kindReserve && f.limit() >= maxSeq {
		return frameInvalid
	}
	return frameValid
}

func (f *frame) term() uint64  { return binary.LittleEndian.Uint64(f.payload) }
func (f *frame) prev() uint64  { return binary.LittleEndian.Uint64(f.payload[8:]) }
func (f *frame) nanos() int64  { return int64(binary.LittleEndian.Uint64(f.payload[16:])) }
func (f *frame) limit() uint64 { return binary.LittleEndian.Uint64(f.payload) }

// chain is where a walk over a segment stands.
type chain struct {
	last  uint64 // last record
	term  uint64 // in force
	limit uint64 // reservation in force
	first uint64 // number in the segment's name until its first record was met, then 0
}

func startChain(h *header) chain {
	return chain{last: h.prev, term: h.term, limit: h.limit, first: h.first}
}

// accept takes the next frame in, or says why it cannot follow.
func (c *chain) accept(f *frame) (reason string) {
	if f.kind == kindReserve {
		if f.seq != c.last {
			return "reservation does not repeat the last sequence number"
		}
		c.limit = f.limit()
		return ""
	}
	switch {
	case f.seq < c.first || f.kind == KindEntry && c.first != 0 && f.seq != c.first:
		// a term record may be above: a power cut took what the segment was begun for
		return "first record is not the one the segment is named after"
	case f.kind == KindTerm && (f.prev() != c.last || f.seq <= c.last):
		return "term record does not follow the record before it"
	case f.kind == KindTerm && f.term() <= c.term:
		return "term did not grow"
	case f.kind == KindEntry && f.seq != c.last+1:
		return "sequence number does not follow the one before it"
	}
	if f.kind == KindTerm {
		c.term = f.term()
	}
	c.last, c.first = f.seq, 0
	return ""
}

// next is the sequence number to expect, for error messages.
func (c *chain) next() uint64 { return max(c.last+1, c.first) }
