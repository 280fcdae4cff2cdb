package eventlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

const (
	// BufferBytes is how much of a log is read at once while there is a lot to read.
	BufferBytes = 64 << 10

	readTail = 4 << 10 // at the end of the log, where most of a larger read would be zeros
)

// Record is one record of the log.
type Record struct {
	Seq     uint64
	Prev    uint64 // of the record before; Seq-1, or less for a KindTerm that leaves a gap over numbers that may have been lost
	Term    uint64 // in force; that of the record itself for KindTerm
	Kind    Kind
	Time    time.Time // of StartTerm, for KindTerm only
	Payload []byte    // the entry; nil for KindTerm. It belongs to the Reader and is valid until its next call
}

// Reader reads the log in order, in any process, also while a writer appends, begins segments and deletes them. It is
// not safe for concurrent use. It never changes a file.
type Reader struct {
	// immutable
	fs  vfs.FS
	dir string

	marks marks

	from  uint64 // what is below is not returned
	seg   header // of file
	path  string
	file  vfs.File // nil: closed
	c     chain    // of what was returned or skipped
	frame frame    // the next one, while Next looks at it

	buf    []byte
	pos    int   // in buf, of the next frame
	off    int64 // of buf in the file
	want   int   // bytes to read next
	eof    bool  // buf ends where the file did
	passed int64 // bytes of all frames returned or skipped
	trust  uint64
	// Only what was at or below the limit when buf was read is final in it. Anything above may have been a group that
	// failed and was wiped, and another one has the numbers now.
}

// OpenReader returns a reader whose first record is from, or the next that exists when from lies in a gap before a term
// record. 0 is the first record still there. from may lie ahead of the log.
//
// Errors: CompactedError when from was deleted, os.ErrNotExist when there is no log (yet), CorruptError, ErrForeign,
// ErrVersion, and what the file system returns. A nil fs is vfs.Default.
func OpenReader(fs vfs.FS, dir string, from uint64) (*Reader, error) {
	if fs == nil {
		fs = vfs.Default
	}
	r := &Reader{fs: fs, dir: dir, from: from}
	if err := r.find(); err != nil {
		return nil, fmt.Errorf("open reader of %s: %w", dir, err)
	}
	return r, nil
}

// OpenReader is the function of that name for the process that writes the log. Over what Open has walked it does not go
// again from the beginning of the segment.
func (l *Log) OpenReader(from uint64) (*Reader, error) {
	r := &Reader{fs: l.o.FS, dir: l.dir, marks: l.walked, from: from}
	if spare := l.spare.Swap(nil); spare != nil {
		r.buf = (*spare)[:0]
	}
	if r.marks.first != 0 && r.marks.first <= from {
		if f, h, err := r.openSegment(r.marks.first); err == nil {
			r.enter(f, h)
			return r, nil
		}
	}
	if err := r.find(); err != nil {
		return nil, fmt.Errorf("open reader of %s: %w", l.dir, err)
	}
	return r, nil
}

// marks are places in a segment where a reader may begin.
type marks struct {
	first uint64 // of the segment; 0: there are none
	at    []mark // ascending
}

// mark is a place between two frames: what a walk knows there, and the offset in the file.
type mark struct {
	chain
	off int64
}

// before returns the last place before the sequence number from.
func (m *marks) before(from uint64) (mark, bool) {
	i := sort.Search(len(m.at), func(i int) bool { return m.at[i].next() > from })
	if i == 0 {
		return mark{}, false
	}
	return m.at[i-1], true
}

// SkipTo makes from, or the next that exists, the next record that is returned, if the reader is not there yet. It reads
// nothing. Segments that lie between here and there are not looked at, and may have been deleted.
func (r *Reader) SkipTo(from uint64) { r.from = max(r.from, from) }

// Rewind goes back: the next record is from, or the next that exists, as if the reader had been opened there, except that
// it may still have what was deleted since. Errors are those of OpenReader, and ErrClosed; after one the reader is where it was.
func (r *Reader) Rewind(from uint64) error {
	if r.file == nil {
		return ErrClosed
	}
	now := r.from
	if r.from = from; r.seg.first <= from {
		r.restart()
		return nil
	}
	if err := r.find(); err != nil {
		r.from = now
		return fmt.Errorf("rewind reader of %s: %w", r.dir, err)
	}
	return nil
}

// find opens the segment that holds from, also while retention deletes what was listed.
func (r *Reader) find() (err error) {
	for range 100 {
		if err = r.seek(); !isNotExist(err) {
			break
		}
	}
	return err
}

// seek opens the segment that holds from.
func (r *Reader) seek() error {
	firsts, err := listSegments(r.fs, r.dir)
	if err != nil {
		return err
	}
	i, found := slices.BinarySearch(firsts, r.from)
	if !found && i > 0 {
		i--
	}
	if len(firsts) == 0 {
		return fmt.Errorf("no segment there: %w", os.ErrNotExist)
	}
	f, h, err := r.openSegment(firsts[i])
	if errors.Is(err, errUnborn) && i == len(firsts)-1 {
		// being created just now, or left by a crash: nothing is in it
		if i == 0 {
			return fmt.Errorf("no segment there yet: %w", os.ErrNotExist)
		}
		i--
		f, h, err = r.openSegment(firsts[i])
	}
	if errors.Is(err, errUnborn) {
		return r.headless(firsts[i])
	}
	if err != nil {
		return err
	}
	if i == 0 && r.from != 0 && r.from <= h.prev {
		return errors.Join(compacted(&h), f.Close())
	}
	if err := r.belongs(&h, firsts[i+1:]); err != nil {
		return errors.Join(err, f.Close())
	}
	r.enter(f, h)
	return nil
}

// belongs sees whether a segment is of the log that the last one is of; rest are those behind it.
func (r *Reader) belongs(h *header, rest []uint64) error {
	for i := len(rest) - 1; i >= 0; i-- {
		f, last, err := r.openSegment(rest[i])
		if errors.Is(err, errUnborn) {
			continue
		}
		if err != nil {
			return nil // whoever comes there is told
		}
		_ = f.Close()
		if h.id != last.id {
			return fmt.Errorf("%w: segments %d and %d belong to different databases, %v and %v", ErrForeign, h.first, last.first, h.id, last.id)
		}
		break
	}
	return nil
}

// compacted says that the log begins with the segment h now. Its first record may be a term record behind a gap; nothing
// that was ever there is missing from the number behind prev on.
func compacted(h *header) error { return &CompactedError{First: h.prev + 1} }

func (r *Reader) openSegment(first uint64) (vfs.File, header, error) {
	path := r.fs.PathJoin(r.dir, segmentName(first))
	f, err := r.fs.Open(path)
	if err != nil {
		return nil, header{}, err
	}
	h, err := readSegmentHeader(f, path, first)
	if isUnborn(err) {
		h, err = r.lookAgain(f, path, first)
	}
	if err != nil {
		_ = f.Close()
		return nil, header{}, err
	}
	return f, h, nil
}

// lookAgain tells a file that was not finished, which is errUnborn, from one that has lost its header.
func (r *Reader) lookAgain(f vfs.File, path string, first uint64) (header, error) {
	unused, err := zerosFrom(f, headerSize, nil)
	if err != nil {
		return header{}, fmt.Errorf("read segment %s: %w", path, err)
	}
	if unused {
		return header{}, errUnborn
	}
	// Data comes only behind a header: its writer may have been at work between the two looks.
	h, err := readSegmentHeader(f, path, first)
	if errors.Is(err, errUnborn) {
		err = r.headless(first)
	}
	return h, err
}

// enter goes to the beginning of a segment.
func (r *Reader) enter(f vfs.File, h header) {
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.seg, r.path = f, h, r.fs.PathJoin(r.dir, segmentName(h.first))
	r.restart()
}

// restart goes to the beginning of the segment that the reader is in, or to a mark before the next record.
func (r *Reader) restart() {
	r.c = startChain(&r.seg)
	r.buf, r.pos, r.off, r.trust = r.buf[:0], 0, headerSize, 0
	if r.marks.first == r.seg.first {
		if m, ok := r.marks.before(r.from); ok {
			r.c, r.off = m.chain, m.off
		}
	}
}

// Next returns the next record if its sequence number is limit or below. ok is false when there is none yet; call again
// later. It does not block.
//
// The limit is the commit word as the leader of now has set it, or below: a record that it covers and that is damaged is
// a CorruptError. One that it covers and of which nothing is there is not yet there; when the word does not come from the
// leader of now (it may be ahead after a power cut) that can last. math.MaxUint64 reads what there is; only when no
// writer is at work that is all committed.
//
// Errors: CompactedError when the record was deleted, CorruptError, ErrClosed, and what the file system returns. They
// leave the reader where it is.
func (r *Reader) Next(limit uint64) (rec Record, ok bool, err error) {
	if r.file == nil {
		return Record{}, false, ErrClosed
	}
	f := &r.frame
	for r.c.next() <= limit {
		v, err := r.peek(limit, f)
		if err != nil {
			return Record{}, false, fmt.Errorf("read segment %s: %w", r.path, err)
		}
		if v == frameValid && f.kind != kindReserve && f.seq > limit {
			return Record{}, false, nil
		}
		reason := reasons[v]
		if v == frameValid {
			reason = r.c.accept(f)
		}
		if reason != "" {
			moved, err := r.resolve(limit, v, reason)
			if !moved || err != nil {
				return Record{}, false, err
			}
			continue
		}
		r.pos += int(f.size)
		r.passed += f.size
		if f.kind == kindReserve || f.seq < r.from || mutant.SkipEvent && f.seq == r.seg.first && f.kind == KindEntry {
			continue
		}
		rec = Record{Seq: f.seq, Prev: f.seq - 1, Term: r.c.term, Kind: f.kind}
		if f.kind == KindTerm {
			rec.Prev, rec.Time = f.prev(), unixNano(f.nanos())
		} else {
			rec.Payload = f.payload
		}
		return rec, true, nil
	}
	return Record{}, false, nil
}

// Last returns up to which sequence number the reader has come: the last record that it went past, or where the segment
// that it stands at the beginning of says that the log was.
func (r *Reader) Last() uint64 { return r.c.last }

// ID returns the database that the log belongs to.
func (r *Reader) ID() ID { return r.seg.id }

// Passed returns how many bytes of log the reader has gone through.
func (r *Reader) Passed() int64 { return r.passed }

// Behind returns about how many bytes of log lie ahead of the reader: those of the files there, which are filled with
// zeros ahead.
func (r *Reader) Behind() (bytes int64, err error) {
	firsts, err := listSegments(r.fs, r.dir)
	if err != nil {
		return 0, err
	}
	for _, first := range firsts {
		if first < r.seg.first {
			continue
		}
		info, err := r.fs.Stat(r.fs.PathJoin(r.dir, segmentName(first)))
		if isNotExist(err) {
			continue // retention has it
		}
		if err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return max(0, bytes-r.off-int64(r.pos)), nil
}

// Close frees the reader. The payload returned last is invalid from then on.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.buf = nil, nil
	return err
}

// reasons say what is wrong with a frame that is not valid.
var reasons = [...]string{frameShort: "frame is cut off", frameZero: "frame is missing", frameInvalid: "frame is damaged"}

// peek decodes the next frame. Unless it is valid, its bytes were read in this call.
func (r *Reader) peek(limit uint64, f *frame) (v verdict, err error) {
	fresh := false
	fill := func(n int) error {
		fresh = true
		return r.fill(n, limit)
	}
	if r.c.next() > r.trust {
		r.want = readTail
		if err := fill(r.want); err != nil {
			return v, err
		}
	}
	for {
		v = decodeFrame(r.buf[r.pos:], r.seg.crc, f)
		switch {
		case v == frameValid && (f.seq <= r.trust || fresh):
			return v, nil
		case v == frameShort && fresh && r.eof:
			return v, nil
		case v == frameShort:
			// the end of the buffer: there is more to read than it holds
			r.want = min(2*max(r.want, readTail), BufferBytes)
			n := max(int64(r.want), f.size)
			if n > BufferBytes { // a damaged length must not cost the memory it claims
				if there, err := r.left(); err != nil || f.size > there {
					return v, err
				}
			}
			if err := fill(int(n)); err != nil {
				return v, err
			}
		case fresh:
			return v, nil
		default:
			if err := fill(readTail); err != nil {
				return v, err
			}
		}
	}
}

// left returns how many bytes the file has from the next frame on.
func (r *Reader) left() (int64, error) {
	info, err := r.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size() - r.off - int64(r.pos), nil
}

// fill reads n bytes, or what there is, from the next frame on.
func (r *Reader) fill(n int, limit uint64) error {
	r.off += int64(r.pos)
	r.pos = 0
	if cap(r.buf) < n || cap(r.buf) > 16*BufferBytes && n <= BufferBytes {
		r.buf = make([]byte, max(n, BufferBytes))
	}
	got, err := r.file.ReadAt(r.buf[:n], r.off)
	r.buf, r.eof = r.buf[:got], got < n
	r.trust = limit
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}
