package eventlog

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
)

// This file is what a Reader does when the next frame is not there or not whole: every other call leaves it alone.

// resolve finds out why the next frame is not there: the segment ends here and the next one must be entered, or the
// record is not there yet, or was deleted, or is damaged. moved tells to look again.
func (r *Reader) resolve(limit uint64, v verdict, reason string) (moved bool, err error) {
	firsts, err := listSegments(r.fs, r.dir)
	if err != nil {
		return false, err
	}
	i, listed := slices.BinarySearch(firsts, r.seg.first)
	rest := firsts[i:]  // those behind this one
	unborn := uint64(0) // and one that a crash or a full disk left unfinished, or that is being begun just now
	if listed {
		rest = rest[1:]
	}
	// Is all that was skipped behind this segment and the next? One step at a time would find those deleted.
	if r.from > r.c.next() && len(rest) > 1 && rest[1] <= r.from {
		return true, r.find()
	}
	if len(rest) > 0 {
		moved, err = r.advance(rest)
		if errors.Is(err, errUnborn) {
			unborn, rest, err = rest[0], nil, nil
		}
		if moved || err != nil {
			return moved, err
		}
	}
	if !listed {
		if r.from > r.c.next() && len(rest) > 0 {
			return true, r.find()
		}
		return r.gone(firsts)
	}
	// The segment by its name again: it may have been created anew since it was opened, and something may have been
	// appended since it was read.
	if moved, err = r.reopen(limit); moved || err != nil {
		return moved, err
	}
	if len(rest) > 0 {
		return false, r.corrupt(reason)
	}
	if unborn != 0 && unborn != r.c.last+1 && unborn != max(r.c.last+1, r.c.limit) { // as recovery sees it
		return false, r.corrupt(fmt.Sprintf("segment %d was begun behind it", unborn))
	}
	b, err := readFrom(r.file, r.off+int64(r.pos))
	if err != nil {
		return false, fmt.Errorf("read segment %s: %w", r.path, err)
	}
	zero := v == frameZero || v == frameShort && allZero(b)
	proof := findProof(b, r.seg.crc, r.c.last+1)
	if proof == 0 && (zero || limit == math.MaxUint64) {
		return false, nil
	}
	if moved, err = r.reopen(limit); moved || err != nil { // appended between the two looks
		return moved, err
	}
	return false, r.corrupt(reason)
}

// advance enters the segment behind this one if this one ends here. The error is errUnborn when there is none but one
// that is not finished.
func (r *Reader) advance(rest []uint64) (moved bool, err error) {
	f, h, err := r.openSegment(rest[0])
	if isNotExist(err) {
		return true, nil // deleted since it was listed
	}
	if errors.Is(err, errUnborn) {
		if len(rest) == 1 {
			return false, err
		}
		return false, r.headless(rest[0])
	}
	if err != nil {
		return false, err
	}
	if h.id != r.seg.id {
		return false, errors.Join(foreign(r.fs.PathJoin(r.dir, segmentName(h.first)), h.id, r.seg.id), f.Close())
	}
	if h.before != r.seg.first || h.prev != r.c.last || h.term != r.c.term {
		return false, f.Close()
	}
	r.enter(f, h)
	return true, nil
}

// gone finds out what it means that this segment is not there any more.
func (r *Reader) gone(firsts []uint64) (moved bool, err error) {
	if len(firsts) == 0 {
		return false, fmt.Errorf("read %s: the log has gone: %w", r.dir, os.ErrNotExist)
	}
	if r.off+int64(r.pos) == headerSize {
		// Nothing was read from it. Its writer may have found no room for the rest of it, and have taken it away again:
		// then the log goes on where the one before ends.
		r.SkipTo(r.c.last + 1)
		return true, r.find()
	}
	if firsts[0] < r.seg.first {
		return false, r.corrupt("the segment has gone")
	}
	f, h, err := r.openSegment(firsts[0])
	if err != nil { // deleted by now as well, or being created: its name will do
		return false, &CompactedError{First: firsts[0]}
	}
	return false, errors.Join(compacted(&h), f.Close())
}

// reopen opens this segment's file again and reports whether the next frame is there now.
func (r *Reader) reopen(limit uint64) (moved bool, err error) {
	f, h, err := r.openSegment(r.seg.first)
	switch {
	case isNotExist(err):
		return true, nil
	case errors.Is(err, errUnborn):
		return false, nil
	case err != nil:
		return false, err
	case h.crc != r.seg.crc && r.off+int64(r.pos) == headerSize && h.id == r.seg.id && h.prev == r.c.last:
		r.enter(f, h) // nothing was read from the one before
		return true, nil
	case h.crc != r.seg.crc:
		return false, errors.Join(r.corrupt("the segment was replaced"), f.Close())
	}
	_ = r.file.Close()
	r.file = f
	r.trust = 0
	var got frame
	v, err := r.peek(limit, &got)
	if err != nil {
		return false, fmt.Errorf("read segment %s: %w", r.path, err)
	}
	c := r.c
	return v == frameValid && c.accept(&got) == "", nil
}

func (r *Reader) corrupt(reason string) error {
	return &CorruptError{File: r.path, Offset: r.off + int64(r.pos), Seq: r.c.next(), Reason: reason}
}

func (r *Reader) headless(first uint64) error {
	return headless(r.fs.PathJoin(r.dir, segmentName(first)), first)
}

// headless is a file without a header where there must be one.
func headless(path string, first uint64) error {
	return &CorruptError{File: path, Seq: first, Reason: "segment has no header"}
}

// foreign is a segment of another log.
func foreign(path string, id, want ID) error {
	return fmt.Errorf("%w: %s belongs to database %v, not to %v", ErrForeign, path, id, want)
}
