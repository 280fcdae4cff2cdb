package eventlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ID is the random identity of a database. Every file of it carries it.
type ID [16]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

const (
	segmentMagic = "PPARTLOG"
	version      = 1
	headerSize   = 128
	suffix       = ".log"
)

// header is what a segment file begins with.
type header struct {
	id      ID
	first   uint64 // first record, also the file's name
	prev    uint64 // last record before this segment, 0: none
	before  uint64 // first record of the segment before this one, 0: none
	term    uint64 // in force at the start
	limit   uint64 // reservation in force at the start
	created int64  // unix nanos
	crc     uint32 // of the encoded header; the seed of every frame's checksum
}

// encode returns the header's bytes and sets crc.
func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], version)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.first)
	binary.LittleEndian.PutUint64(b[40:], h.prev)
	binary.LittleEndian.PutUint64(b[48:], h.before)
	binary.LittleEndian.PutUint64(b[56:], h.term)
	binary.LittleEndian.PutUint64(b[64:], h.limit)
	binary.LittleEndian.PutUint64(b[72:], uint64(h.created))
	h.crc = crc32.Checksum(b[:headerSize-4], castagnoli)
	binary.LittleEndian.PutUint32(b[headerSize-4:], h.crc)
	return b
}

// errUnborn is a file without a header: a crash came while it was created, or its writer is creating it just now.
var errUnborn = errors.New("segment has no header yet")

// isUnborn tells whether err, of reading a header, is one that a crash may have left as the file was created: if there
// is nothing behind it.
func isUnborn(err error) bool {
	var ce *CorruptError
	return errors.Is(err, errUnborn) || errors.As(err, &ce) && ce.Reason == reasonHeaderSum
}

const reasonHeaderSum = "checksum of the segment header is wrong"

// decodeSegmentHeader checks and reads a header. path is for messages, first is what the file's name says.
func decodeSegmentHeader(b []byte, path string, first uint64) (header, error) {
	if len(b) < headerSize || allZero(b[:headerSize]) {
		return header{}, errUnborn
	}
	if string(b[:8]) != segmentMagic {
		return header{}, fmt.Errorf("%w: %s is not a log segment", ErrForeign, path)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > version {
		return header{}, fmt.Errorf("%w: %s has format version %d, this software reads %d: upgrade it", ErrVersion, path, v, version)
	}
	h := header{
		first:   binary.LittleEndian.Uint64(b[32:]),
		prev:    binary.LittleEndian.Uint64(b[40:]),
		before:  binary.LittleEndian.Uint64(b[48:]),
		term:    binary.LittleEndian.Uint64(b[56:]),
		limit:   binary.LittleEndian.Uint64(b[64:]),
		created: int64(binary.LittleEndian.Uint64(b[72:])),
		crc:     binary.LittleEndian.Uint32(b[headerSize-4:]),
	}
	copy(h.id[:], b[16:])
	corrupt := func(reason string) (header, error) {
		return header{}, &CorruptError{File: path, Seq: first, Reason: reason}
	}
	switch {
	case crc32.Checksum(b[:headerSize-4], castagnoli) != h.crc:
		return corrupt(reasonHeaderSum)
	case h.first != first:
		return corrupt(fmt.Sprintf("header is that of segment %d", h.first))
	case h.first <= h.prev || h.prev < h.before || h.first >= maxSeq || h.limit >= maxSeq:
		return corrupt("segment header contradicts itself")
	}
	return h, nil
}

// segment is a file of the log. Its size is that of the file, zeros included.
type segment struct {
	header
	size   int64
	unread bool // only its name is known
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, suffix) }

// Exists tells whether there is a log in dir: any segment, be it damaged.
func Exists(fs vfs.FS, dir string) (bool, error) {
	if _, err := fs.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	firsts, err := listSegments(fs, dir)
	return len(firsts) > 0, err
}

func listSegments(fs vfs.FS, dir string) ([]uint64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments in %s: %w", dir, err)
	}
	var firsts []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, suffix)
		if !ok || len(digits) != 20 {
			continue
		}
		if first, err := strconv.ParseUint(digits, 10, 64); err == nil && first < maxSeq {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// readSegmentHeader reads the header of an open file.
func readSegmentHeader(f vfs.File, path string, first uint64) (header, error) {
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, fmt.Errorf("read segment %s: %w", path, err)
	}
	return decodeSegmentHeader(b[:n], path, first)
}

// loadSegment reads header and size of a segment that is not open.
func loadSegment(fs vfs.FS, dir string, first uint64) (segment, error) {
	path := fs.PathJoin(dir, segmentName(first))
	f, err := fs.Open(path)
	if err != nil {
		return segment{}, fmt.Errorf("open segment %s: %w", path, err)
	}
	defer f.Close()
	h, err := readSegmentHeader(f, path, first)
	if err != nil {
		return segment{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return segment{}, fmt.Errorf("stat segment %s: %w", path, err)
	}
	return segment{header: h, size: info.Size()}, nil
}

// createSegment makes a segment of the given size durable: contents first, then its name. After an error the name is
// free again or holds a segment without frames, which the next attempt or the next Open replaces.
func createSegment(fs vfs.FS, dir string, h *header, size int64) (_ vfs.File, err error) {
	path := fs.PathJoin(dir, segmentName(h.first))
	defer func() {
		if err != nil {
			err = fmt.Errorf("create segment %s: %w", path, err)
		}
	}()
	// What an earlier attempt left is never taken over: its pages may be marked clean without being on the disk.
	if err := fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	err = writeFull(f, h.encode(), 0)
	if err == nil {
		err = writeZeros(f, headerSize, size)
	}
	if err == nil {
		// A power cut later must not leave frames behind a header that is missing, nor in a file that has no name.
		if err = f.Sync(); err == nil {
			err = syncDir(fs, dir)
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", errSync, err)
		}
	}
	if err != nil {
		_ = f.Close()
		_ = fs.Remove(path)
		return nil, err
	}
	return f, nil
}

// errSync tells a sync that failed from what else may fail.
var errSync = errors.New("sync")

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// zeros is never written.
var zeros [64 << 10]byte

// writeZeros fills [from, to).
func writeZeros(f vfs.File, from, to int64) error {
	for from < to {
		n := min(to-from, int64(len(zeros)))
		if err := writeFull(f, zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

func writeFull(f vfs.File, b []byte, at int64) error {
	n, err := f.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// allZero compares b with itself, eight bytes on: that touches no other memory.
func allZero(b []byte) bool {
	for len(b) > 0 && len(b) < 8 {
		if b[0] != 0 {
			return false
		}
		b = b[1:]
	}
	return len(b) == 0 || binary.LittleEndian.Uint64(b) == 0 && bytes.Equal(b[:len(b)-8], b[8:])
}

func unixNano(nanos int64) time.Time { return time.Unix(0, nanos) }
