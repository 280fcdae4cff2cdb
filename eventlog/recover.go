package eventlog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// Open opens the log in dir for writing, and creates the directory (0700) and the first segment when they are missing.
// What a crash left half written at the end is cut off. StartTerm must come next; the sync behind it makes durable what
// Durable does not cover yet. Open reads the last segment and the names of the others; damage of those shows when a Reader comes by.
//
// Errors: CorruptError when something durable is damaged or missing, ErrForeign, ErrVersion, and what the file system
// returns. After an error the log is as it was, or as much of its torn tail is gone as was going to be cut.
func Open(dir string, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{o: o, dir: dir, broken: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) open() error {
	if err := l.o.FS.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	unborn, err := l.load()
	if err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	if len(l.segs) == 0 {
		return l.begin(unborn)
	}
	if err := l.recover(unborn); err != nil {
		if l.file != nil {
			_ = l.file.Close()
		}
		return err
	}
	return nil
}

// load reads the header of the last segment. The last file may be one that a crash left without a usable header and
// without data: it is not the last segment then, unborn names it.
func (l *Log) load() (unborn uint64, err error) {
	firsts, err := listSegments(l.o.FS, l.dir)
	if err != nil {
		return 0, err
	}
	for n := len(firsts); n > 0; n-- {
		last := firsts[n-1]
		l.current, err = loadSegment(l.o.FS, l.dir, last)
		if err == nil {
			for _, first := range firsts[:n-1] {
				l.segs = append(l.segs, segment{header: header{first: first}, unread: true})
			}
			l.segs = append(l.segs, l.current)
			return unborn, nil
		}
		unused := false
		if isUnborn(err) && unborn == 0 {
			var uerr error
			if unused, uerr = l.unused(last); uerr != nil {
				return 0, uerr
			}
		}
		switch {
		case unused:
			unborn = last
		case errors.Is(err, errUnborn):
			return 0, headless(l.o.FS.PathJoin(l.dir, segmentName(last)), last)
		default:
			return 0, err
		}
	}
	return unborn, nil
}

// unused reports whether there is nothing behind a segment's header. A frame is written only after the header is
// durable, so data behind a bad header is a header that was damaged later.
func (l *Log) unused(first uint64) (bool, error) {
	f, err := l.o.FS.Open(l.o.FS.PathJoin(l.dir, segmentName(first)))
	if err != nil {
		return false, err
	}
	defer f.Close()
	return zerosFrom(f, headerSize, nil)
}

// check sees whether the last segment is of the right log, and follows the one before it.
func (l *Log) check() error {
	l.id = l.o.ID
	if len(l.segs) == 0 {
		if l.id == (ID{}) {
			_, _ = rand.Read(l.id[:]) // never fails, crypto/rand ends the process instead
		}
		return nil
	}
	path := l.path()
	if l.id == (ID{}) {
		l.id = l.current.id
	}
	if l.current.id != l.id {
		return foreign(path, l.current.id, l.id)
	}
	if i := len(l.segs) - 2; i >= 0 && l.current.before != l.segs[i].first {
		return &CorruptError{
			File: path, Seq: l.segs[i].first,
			Reason: fmt.Sprintf("follows segment %d, but the one before it is %d", l.current.before, l.segs[i].first),
		}
	}
	return nil
}

// begin creates the first segment.
func (l *Log) begin(unborn uint64) error {
	first := l.o.After + 1
	if unborn > first || l.o.DurableHint > l.o.After {
		// numbers from After+1 on were given out before: what stood there has gone, and they must not be given out again
		return &CorruptError{
			File: l.dir, Seq: first,
			Reason: fmt.Sprintf("no segment is there, though the log was durable up to %d", max(l.o.DurableHint, unborn-min(unborn, 1))),
		}
	}
	if unborn != 0 {
		if err := l.o.FS.Remove(l.o.FS.PathJoin(l.dir, segmentName(unborn))); err != nil {
			return err
		}
	}
	h := header{id: l.id, first: first, prev: l.o.After, limit: first, created: l.o.Now().UnixNano()}
	size := l.fillTo(headerSize)
	f, err := createSegment(l.o.FS, l.dir, &h, size)
	if err != nil {
		return err
	}
	if err := syncDir(l.o.FS, l.o.FS.PathDir(l.dir)); err != nil { // or a power cut takes the folder with all that is in it
		return errors.Join(err, f.Close())
	}
	l.file = f
	l.use(segment{header: h, size: size}, headerSize, true)
	l.segs = []segment{l.current}
	l.next, l.limit = first, first
	l.last.Store(l.o.After)
	l.durable.Store(l.o.After)
	return nil
}

// recover walks the last segment, cuts its torn tail and writes again what may not be durable.
func (l *Log) recover(unborn uint64) error {
	s := l.current
	path := l.path()
	f, err := l.o.FS.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	l.file = f
	if mutant.LoseLastFrame {
		l.loseLastFrame(&s)
	}
	start := mark{startChain(&s.header), headerSize}
	from := l.o.From.in(&s, l.o.DurableHint, start)
	w, b, reason, err := l.examine(f, &s, unborn, from)
	if err == nil && from != start && (reason != "" || w.end == from.off) {
		w, b, reason, err = l.examine(f, &s, unborn, start)
	}
	if err != nil {
		return fmt.Errorf("read segment %s: %w", path, err)
	}
	if reason != "" {
		return &CorruptError{File: path, Offset: w.end, Seq: w.next(), Reason: reason}
	}
	l.walked = marks{first: s.first, at: w.marks}
	end := w.end - w.rewrite
	data := lastNonZero(b, end)
	// What no sync is known of is written again: a sync that failed under a dead leader leaves pages in the cache that are
	// marked clean and are not on the disk, and no sync would write them. The torn tail becomes zeros.
	clear(b[end:data])
	if data > 0 {
		if err := writeFull(f, b[:data], w.rewrite); err != nil {
			return fmt.Errorf("repair segment %s: %w", path, err)
		}
	}
	if data > end { // an old frame must never come back behind new ones
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync segment %s: %w", path, err)
		}
		data = 0
	}
	if unborn != 0 {
		if err := l.o.FS.Remove(l.o.FS.PathJoin(l.dir, segmentName(unborn))); err != nil {
			return err
		}
	}
	fresh := w.first != 0
	if unborn != 0 || fresh { // or its leader may have died before it synced the name
		if err := syncDir(l.o.FS, l.dir); err != nil {
			return err
		}
	}
	l.use(s, w.end, fresh)
	l.next = max(w.next(), w.limit)
	l.limit = w.limit
	l.last.Store(w.last)
	l.durable.Store(w.last)
	if data > 0 {
		l.durable.Store(max(s.prev, min(l.o.DurableHint, w.last)))
	}
	l.term.Store(w.term)
	return nil
}

// examine goes over a segment from a mark on. b is the file from w.rewrite on, to where there are only zeros. The reason, if
// there is one, says why what ends the walk is not a torn tail.
func (l *Log) examine(f vfs.File, s *segment, unborn uint64, from mark) (w walked, b []byte, reason string, err error) {
	w, buf, err := walk(f, s.size, s.header.crc, l.o.DurableHint, from, l.o.Buffer)
	if err != nil {
		return w, nil, "", err
	}
	// Mostly there are zeros behind the end, which are not kept to be looked at again.
	until := w.end
	if zero, err := zerosFrom(f, w.end, buf); err != nil {
		return w, nil, "", err
	} else if !zero {
		until = s.size
	}
	if b, err = readRange(f, w.rewrite, until); err != nil {
		return w, nil, "", err
	}
	if l.o.Buffer = nil; cap(buf) <= 2*BufferBytes { // else it is of an entry that was large
		l.spare.Store(&buf)
	}
	return w, b, w.lost(b, s.header.crc, l.o.DurableHint, unborn), nil
}

// in returns p as a place in s, or the start of that if it cannot be one, or not all before it is durable.
func (p *Position) in(s *segment, hint uint64, start mark) mark {
	if p.Segment != s.first || p.Offset <= start.off || p.Offset >= s.size || p.Last < s.first || p.Last > hint {
		return start
	}
	return mark{chain{last: p.Last, term: p.Term, limit: p.Limit}, p.Offset}
}

// walked is what a walk found out about a segment.
type walked struct {
	chain
	end     int64 // of the valid frames
	rewrite int64 // from here on nothing is known to be durable
	marks   []mark
}

// walk goes over the valid frames of a segment, from a mark before which all is durable. Records up to hint are known to be. It reads
// piece by piece: the checksums then run over bytes that the processor still has at hand. It reads into b, or a larger one,
// which it returns.
func walk(f vfs.File, size int64, seed uint32, hint uint64, from mark, b []byte) (w walked, _ []byte, err error) {
	w = walked{chain: from.chain, end: from.off}
	if from.off > headerSize {
		w.rewrite = from.off
	}
	b = b[:0]
	// b is the file from at on
	at := w.end
	var fr frame
	for {
		v := decodeFrame(b[w.end-at:], seed, &fr)
		switch {
		case v == frameShort && w.end+fr.size <= size:
			at = w.end
			w.marks = append(w.marks, mark{w.chain, w.end})
			b = slices.Grow(b[:0], int(min(max(BufferBytes, fr.size), size-at)))
			n, err := f.ReadAt(b[:min(int64(cap(b)), size-at)], at)
			if err != nil && !errors.Is(err, io.EOF) || int64(n) < fr.size {
				return w, b, errors.Join(err, io.ErrUnexpectedEOF)
			}
			b = b[:n]
			continue
		case v != frameValid || w.accept(&fr) != "":
			return w, b, nil
		}
		w.end += fr.size
		// not a reservation behind the last such record: it is a write of its own, and its sync may have failed
		if fr.kind != kindReserve && fr.seq <= hint {
			w.rewrite = w.end
		}
	}
}

// lost says why what ends the walk is not a torn tail; b is the file from w.rewrite on, to where
// there are only zeros.
func (w *walked) lost(b []byte, seed uint32, hint, unborn uint64) (reason string) {
	if hint > w.last {
		return fmt.Sprintf("the log was durable up to %d", hint)
	}
	// a following segment is begun only when all of this one is durable
	if unborn != 0 && unborn != w.last+1 && unborn != max(w.last+1, w.limit) {
		return fmt.Sprintf("segment %d was begun behind it", unborn)
	}
	if at := findProof(b[w.end-w.rewrite:], seed, w.last+1); at != 0 {
		return fmt.Sprintf("frame is damaged, and the one at offset %d was written when it was durable", w.end+at)
	}
	return ""
}

// findProof looks behind the invalid frame that b begins with for one that was written when seq was durable already, and
// returns its offset, 0 when there is none.
func findProof(b []byte, seed uint32, seq uint64) int64 {
	// Bytes that callers chose may look like frames, all of them as long as the file. No real tail needs that much work.
	budget := 64<<20 + 16*int64(len(b))
	var f frame
	for at := int64(8); at+frameHeader <= int64(len(b)); at += 8 {
		if binary.LittleEndian.Uint64(b[at+24:]) == 0 {
			// not a frame; whole blocks without data go fast
			for int64(len(b)) >= at+4096 && allZero(b[at:at+4096]) {
				at += 4096 - 32 // the block's last words may begin a frame
			}
			continue
		}
		if decodeHeader(b[at:], &f) != frameShort || f.synced < seq || at+f.size > int64(len(b)+7)&^7 {
			continue
		}
		if budget -= f.size; budget < 0 {
			return at // cannot be told: rather stop than lose anything
		}
		end := at + frameHeader + int64(binary.LittleEndian.Uint32(b[at+4:]))
		if end <= int64(len(b)) && crc32.Update(seed, castagnoli, b[at+4:end]) == binary.LittleEndian.Uint32(b[at:]) {
			return at
		}
	}
	return 0
}

// lastNonZero returns the offset behind the last byte of b[from:] that is not zero, from when there is none.
func lastNonZero(b []byte, from int64) int64 {
	end := int64(len(b))
	for end-from >= 4096 && allZero(b[end-4096:end]) {
		end -= 4096
	}
	return from + int64(len(bytes.TrimRight(b[from:end], "\x00")))
}

// readFrom reads a file from an offset to its end in one go.
func readFrom(f vfs.File, from int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readRange(f, from, info.Size())
}

// readRange reads what a file has of [from, to) in one go.
func readRange(f vfs.File, from, to int64) ([]byte, error) {
	if to <= from {
		return nil, nil
	}
	b := make([]byte, to-from)
	n, err := f.ReadAt(b, from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// zerosFrom tells whether there is nothing but zeros from an offset to the end. It reads into buf, piece by piece.
func zerosFrom(f vfs.File, from int64, buf []byte) (bool, error) {
	buf = slices.Grow(buf[:0], readTail)
	for {
		n, err := f.ReadAt(buf[:cap(buf)], from)
		if !allZero(buf[:n]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		from += int64(n)
	}
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }
