package eventlog

import (
	"errors"
	"fmt"

	"github.com/pebbleparty/pebbleparty/internal/nospace"
)

// This file is the end of the log, where frames are written and synced. Except for the syncs, mu is held.

// makeRoom readies n bytes at the end, in a new segment when they do not fit. After an error nothing has changed that
// an append could see.
func (l *Log) makeRoom(n int64) error {
	if l.mustRotate || !l.fresh && l.end+n > l.o.SegmentBytes {
		if err := l.rotate(n); err != nil {
			return err
		}
	}
	return l.extend(n)
}

// extend writes zeros ahead when n bytes do not fit: later syncs then overwrite blocks that exist already, and the file
// system has no metadata to write. (vfs.File.Preallocate keeps the size and leaves unwritten extents, which it would.)
func (l *Log) extend(n int64) error {
	if l.end+n <= l.filled {
		return nil
	}
	to := l.fillTo(l.end + n)
	if err := writeZeros(l.file, l.filled, to); err != nil {
		return fmt.Errorf("extend segment %s: %w", l.path(), err)
	}
	l.filled = to
	l.setSize(to)
	return nil
}

// fillTo is the size for a file with data up to end: up to a chunk ahead, though not beyond where the segment is closed.
func (l *Log) fillTo(end int64) int64 {
	c := l.o.ChunkBytes
	return min((end+c)/c*c, max(end, l.o.SegmentBytes))
}

func (l *Log) setSize(n int64) {
	l.segMu.Lock()
	l.segs[len(l.segs)-1].size = n
	l.segMu.Unlock()
}

// rotate begins a new segment with room for n bytes. The old one is synced first: only the last segment ever holds
// frames that a power cut could take.
func (l *Log) rotate(n int64) error {
	if err := l.syncFile(); err != nil {
		return err
	}
	h := header{
		id: l.id, first: l.next, prev: l.last.Load(), before: l.current.first,
		term: l.term.Load(), limit: l.limit, created: l.o.Now().UnixNano(),
	}
	l.mustRotate = true
	size := l.fillTo(headerSize + n)
	f, err := createSegment(l.o.FS, l.dir, &h, size)
	if errors.Is(err, errSync) && !nospace.Is(err) {
		return l.fail(err) // as every sync that fails; nothing was appended
	}
	if err != nil {
		return err
	}
	l.mustRotate = false
	l.syncMu.Lock()
	old := l.file
	l.file = f
	l.syncMu.Unlock()
	_ = old.Close() // synced; a failing close has nothing to tell
	l.use(segment{header: h, size: size}, headerSize, true)
	l.segMu.Lock()
	l.segs = append(l.segs, l.current)
	l.segMu.Unlock()
	return nil
}

func (l *Log) use(s segment, end int64, fresh bool) {
	l.current, l.end, l.filled, l.fresh = s, end, s.size, fresh
}

// write puts frames at the end. After an error that is not ErrFailed the file is as it was.
func (l *Log) write(b []byte) error {
	if cap(b) <= 4<<20 {
		l.buf = b
	}
	err := writeFull(l.file, b, l.end)
	if err == nil {
		l.end += int64(len(b))
		return nil
	}
	err = fmt.Errorf("write segment %s: %w", l.path(), err)
	// Some of the frames may be in the file and even on the disk. They are wiped, durably: otherwise a power cut could
	// bring them back behind what is appended next.
	if zerr := writeZeros(l.file, l.end, l.end+int64(len(b))); zerr != nil {
		return l.fail(errors.Join(err, zerr))
	}
	if serr := l.syncFile(); serr != nil {
		return serr
	}
	return err
}

// advance takes the records up to seq as appended.
func (l *Log) advance(seq uint64) {
	l.next = seq + 1
	l.fresh = false
	l.last.Store(seq)
}

// syncTo returns when the records up to seq, which are written, are durable.
func (l *Log) syncTo(seq uint64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if l.durable.Load() >= seq && l.file != nil {
		return l.failure()
	}
	return l.syncLocked(seq)
}

// syncFile syncs whatever is in the file, also what has no sequence number.
func (l *Log) syncFile() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	return l.syncLocked(l.last.Load())
}

func (l *Log) syncLocked(seq uint64) error {
	if err := l.failure(); err != nil {
		return err
	}
	if l.file == nil {
		return ErrClosed
	}
	if err := l.file.SyncData(); err != nil {
		// The kernel may have marked the pages clean: another sync would succeed and mean nothing.
		return l.fail(fmt.Errorf("sync segment: %w", err))
	}
	// Only seq: what was appended meanwhile may have missed this sync.
	l.durable.Store(max(l.durable.Load(), seq))
	return nil
}

func (l *Log) path() string { return l.o.FS.PathJoin(l.dir, segmentName(l.current.first)) }
