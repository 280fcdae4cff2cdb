package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// What is wrong with a backup stream. Nothing of it was kept.
var (
	// ErrDamaged: it is no backup, or was cut off or changed. The text says where.
	ErrDamaged = errors.New("snapshot: damaged backup")
	// ErrVersion: a newer version wrote it.
	ErrVersion = errors.New("snapshot: backup of a newer version")
)

// A stream is a preamble and chunks; see doc.go.
const (
	streamMagic   = "PPARTBAK"
	streamVersion = 1
	preambleLen   = 8 + 4 + 4
	chunkHeadLen  = 1 + 3 + 4
	// chunkSize is from where on a chunk is written; one pair always fits.
	chunkSize = 256 << 10
)

const (
	chunkHead    = 1 // Head
	chunkPairs   = 2 // of a full backup
	chunkEntries = 3 // of an incremental one
	chunkEnd     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Head says what a backup is.
type Head struct {
	Incremental bool
	Database    eventlog.ID // that it was made of
	Since       uint64      // incremental: it has what comes behind that, else 0
	Seq         uint64      // and up to that
	Time        time.Time   // of the newest entry up to Seq, by the leader's clock
	Comparer    string
	Merger      string
	Cursors     []apply.Cursor // of named subscriptions, as the state at Seq has them; none if Incremental
}

func (h *Head) append(dst []byte) []byte {
	kind := byte(1)
	if h.Incremental {
		kind = 2
	}
	dst = append(dst, kind)
	dst = append(dst, h.Database[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.Since)
	dst = binary.LittleEndian.AppendUint64(dst, h.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Time.UnixNano()))
	dst = appendBytes(dst, []byte(h.Comparer))
	dst = appendBytes(dst, []byte(h.Merger))
	for _, c := range h.Cursors {
		dst = binary.AppendUvarint(appendBytes(dst, []byte(c.Name)), c.Seq)
	}
	return dst
}

func (h *Head) decode(b []byte) error {
	if len(b) < 1+16+3*8 || b[0] != 1 && b[0] != 2 {
		return errors.New("the head is malformed")
	}
	h.Incremental = b[0] == 2
	h.Database = eventlog.ID(b[1:17])
	h.Since = binary.LittleEndian.Uint64(b[17:])
	h.Seq = binary.LittleEndian.Uint64(b[25:])
	h.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b[33:])))
	comparer, rest, ok := takeBytes(b[41:])
	merger, rest, ok2 := takeBytes(rest)
	if !ok || !ok2 || len(rest) > 0 && h.Incremental || h.Since > h.Seq || !h.Incremental && h.Since != 0 {
		return errors.New("the head is malformed")
	}
	h.Comparer, h.Merger = string(comparer), string(merger)
	for len(rest) > 0 {
		var name []byte
		if name, rest, ok = takeBytes(rest); !ok {
			return errors.New("a cursor is malformed")
		}
		seq, n := binary.Uvarint(rest)
		if n <= 0 {
			return errors.New("a cursor is malformed")
		}
		h.Cursors, rest = append(h.Cursors, apply.Cursor{Name: string(name), Seq: seq}), rest[n:]
	}
	return nil
}

// streamWriter writes a backup.
type streamWriter struct {
	w     io.Writer
	buf   []byte // the chunk that is being filled, with room for its head in front
	typ   byte   // of it
	crc   uint32 // continued from chunk to chunk: none can be missing or out of order
	sum   hash.Hash
	count tally
}

// tally is what the end of a stream repeats.
type tally struct{ chunks, items, bytes uint64 }

func newStreamWriter(w io.Writer, h *Head, typ byte) (*streamWriter, error) {
	s := &streamWriter{w: w, typ: chunkHead, sum: sha256.New()}
	pre := append(make([]byte, 0, preambleLen), streamMagic...)
	pre = binary.LittleEndian.AppendUint32(pre, streamVersion)
	s.crc = crc32.Checksum(pre, castagnoli)
	pre = binary.LittleEndian.AppendUint32(pre, s.crc)
	if err := s.write(pre); err != nil {
		return nil, err
	}
	s.buf = h.append(make([]byte, chunkHeadLen, chunkSize+chunkSize/4))
	err := s.flush()
	s.typ = typ
	return s, err
}

func (s *streamWriter) write(b []byte) error {
	s.sum.Write(b)
	_, err := s.w.Write(b)
	return err
}

// add adds an item, which is two strings, or a number and a string.
func (s *streamWriter) pair(key, value []byte) {
	s.buf = appendBytes(appendBytes(s.buf, key), value)
	s.count.items++
	s.count.bytes += uint64(len(key) + len(value))
}

func (s *streamWriter) entry(seq uint64, payload []byte) {
	s.buf = appendBytes(binary.AppendUvarint(s.buf, seq), payload)
	s.count.items++
	s.count.bytes += uint64(len(payload))
}

// full tells that it is time to flush.
func (s *streamWriter) full() bool { return len(s.buf) >= chunkSize }

// flush writes the chunk, if there is anything in it.
func (s *streamWriter) flush() error {
	n := len(s.buf) - chunkHeadLen
	if n == 0 {
		return nil
	}
	if uint64(n) > math.MaxUint32 { // int may have 32 bits
		return fmt.Errorf("a pair of %d bytes does not fit a backup", n)
	}
	clear(s.buf[:chunkHeadLen])
	s.buf[0] = s.typ
	binary.LittleEndian.PutUint32(s.buf[4:], uint32(n))
	s.crc = crc32.Update(s.crc, castagnoli, s.buf)
	s.buf = binary.LittleEndian.AppendUint32(s.buf, s.crc)
	s.count.chunks++
	err := s.write(s.buf)
	if cap(s.buf) > 4*chunkSize {
		s.buf = make([]byte, chunkHeadLen, chunkSize+chunkSize/4)
	}
	s.buf = s.buf[:chunkHeadLen]
	return err
}

// end writes what is left and the last chunk.
func (s *streamWriter) end(seq uint64) error {
	if err := s.flush(); err != nil {
		return err
	}
	s.typ = chunkEnd
	for _, v := range []uint64{s.count.chunks, s.count.items, s.count.bytes, seq} {
		s.buf = binary.LittleEndian.AppendUint64(s.buf, v)
	}
	s.buf = s.sum.Sum(s.buf)
	return s.flush()
}

// streamReader reads a backup. It reads no further than its end.
type streamReader struct {
	r     io.Reader
	head  Head
	off   int64
	crc   uint32
	sum   hash.Hash
	count tally
	buf   bytes.Buffer
}

func newStreamReader(r io.Reader) (*streamReader, error) {
	s := &streamReader{r: r, sum: sha256.New()}
	if err := s.fill(preambleLen); err != nil {
		return nil, err
	}
	pre := s.buf.Bytes()
	if string(pre[:8]) != streamMagic {
		return nil, s.damaged("it does not begin as a backup does")
	}
	s.crc = crc32.Checksum(pre[:12], castagnoli)
	if s.crc != binary.LittleEndian.Uint32(pre[12:]) {
		return nil, s.damaged("checksum of the beginning is wrong")
	}
	if v := binary.LittleEndian.Uint32(pre[8:]); v != streamVersion {
		return nil, fmt.Errorf("%w: version %d, this program knows version %d; upgrade it", ErrVersion, v, streamVersion)
	}
	s.took()
	typ, payload, err := s.chunk()
	if err != nil {
		return nil, err
	}
	if typ != chunkHead {
		return nil, s.damaged("the head is missing")
	}
	if err := s.head.decode(payload); err != nil {
		return nil, s.damaged(err.Error())
	}
	return s, nil
}

// fill reads n bytes behind those in the buffer. Memory is taken as they come: a
// damaged length must not cost what it claims.
func (s *streamReader) fill(n int64) error {
	got, err := io.CopyN(&s.buf, s.r, n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.damaged(fmt.Sprintf("cut off after %d bytes", s.off+int64(s.buf.Len())))
	}
	if err != nil {
		return fmt.Errorf("read the backup at offset %d: %w", s.off+got, err)
	}
	return nil
}

// took counts what is in the buffer as read.
func (s *streamReader) took() {
	s.sum.Write(s.buf.Bytes())
	s.off += int64(s.buf.Len())
	s.buf.Reset()
	if s.buf.Cap() > 16*chunkSize {
		s.buf = bytes.Buffer{}
	}
}

func (s *streamReader) damaged(reason string) error {
	return fmt.Errorf("%w: chunk %d at offset %d: %s", ErrDamaged, s.count.chunks, s.off, reason)
}

// chunk returns the next chunk, whose bytes are valid until the next call.
func (s *streamReader) chunk() (typ byte, payload []byte, err error) {
	s.took()
	if err := s.fill(chunkHeadLen); err != nil {
		return 0, nil, err
	}
	n := int64(binary.LittleEndian.Uint32(s.buf.Bytes()[4:]))
	if err := s.fill(n + 4); err != nil {
		return 0, nil, err
	}
	b := s.buf.Bytes()
	end := chunkHeadLen + int(n)
	s.crc = crc32.Update(s.crc, castagnoli, b[:end])
	if s.crc != binary.LittleEndian.Uint32(b[end:]) {
		return 0, nil, s.damaged("checksum is wrong")
	}
	s.count.chunks++
	return b[0], b[chunkHeadLen:end], nil
}

// next returns the next chunk of items; ok is false once the end was read and all
// is as it was written.
func (s *streamReader) next() (payload []byte, ok bool, err error) {
	want := byte(chunkPairs)
	if s.head.Incremental {
		want = chunkEntries
	}
	typ, payload, err := s.chunk()
	switch {
	case err != nil:
		return nil, false, err
	case typ == want:
		return payload, true, nil
	case typ != chunkEnd:
		return nil, false, s.damaged(fmt.Sprintf("a chunk of type %d has no place here", typ))
	}
	end := binary.LittleEndian.AppendUint64(nil, s.count.chunks-1)
	for _, v := range []uint64{s.count.items, s.count.bytes, s.head.Seq} {
		end = binary.LittleEndian.AppendUint64(end, v)
	}
	if !bytes.Equal(payload, s.sum.Sum(end)) {
		return nil, false, s.damaged("its end does not fit what came before")
	}
	return nil, false, nil
}

// pair takes a pair off a chunk.
func (s *streamReader) pair(b []byte) (p Pair, rest []byte, err error) {
	p.Key, rest, _ = takeBytes(b)
	value, rest, ok := takeBytes(rest)
	if !ok {
		return p, nil, s.damaged("a pair is malformed")
	}
	p.Value = value
	s.count.items++
	s.count.bytes += uint64(len(p.Key) + len(p.Value))
	return p, rest, nil
}

// entry takes a log entry off a chunk.
func (s *streamReader) entry(b []byte) (seq uint64, payload, rest []byte, err error) {
	seq, n := binary.Uvarint(b)
	if n > 0 {
		var ok bool
		if payload, rest, ok = takeBytes(b[n:]); ok {
			s.count.items++
			s.count.bytes += uint64(len(payload))
			return seq, payload, rest, nil
		}
	}
	return 0, nil, nil, s.damaged("an entry is malformed")
}
