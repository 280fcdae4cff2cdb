package eventlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// Options of Open. The zero value works.
type Options struct {
	// FS is where the log lives. Default: vfs.Default.
	FS vfs.FS
	// ID is the database the log must belong to. Default: that of the log that is there, or a new random one.
	ID ID
	// After is the sequence number a log without any segment continues: its first record will be After+1. Default: 0.
	After uint64
	// DurableHint is up to where the commit word said the log was durable. A log that ends before it is corrupt, and
	// what lies behind it is written and synced again. Default: 0, unknown.
	DurableHint uint64
	// From is a Position that this log had. If it is in the last segment, and DurableHint covers it, Open goes over what lies
	// behind it only: damage before it shows when a Reader comes by. Default: none, Open goes over all of the segment, as it
	// does when it finds no record at From.
	From Position
	// SegmentBytes is the size at which a segment is closed. A group of entries is never split, so a larger one makes
	// a larger segment. Small ones let retention work finer and cost a sync of a new file each. Default: 4 MiB.
	SegmentBytes int64
	// ChunkBytes is how far the segment is filled with zeros ahead of its end, in bytes: larger means that fewer syncs
	// have to write the file's metadata too, and more room is taken by an idle log. Default: 512 KiB.
	ChunkBytes int64
	// ReserveSeqs is how many unsynced entries are appended for one sync of the reservation; as many sequence numbers
	// are skipped at most when a crash came before a clean Close. Default: 65536.
	ReserveSeqs uint64
	// Buffer, of BufferBytes, is for Open to read into, and then for the log's first Reader: it is theirs from then on.
	// Default: they make one.
	Buffer []byte
	// Now is the clock for segment headers and retention. Default: time.Now.
	Now func() time.Time
	// Damaged is told by Retain, once, of each segment but the last whose header is damaged. No lock is held meanwhile.
	// Default: nobody is told.
	Damaged func(error)
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.SegmentBytes < 0 {
		errs = append(errs, fmt.Errorf("eventlog: SegmentBytes is %d, below 0", o.SegmentBytes))
	}
	if o.ChunkBytes < 0 {
		errs = append(errs, fmt.Errorf("eventlog: ChunkBytes is %d, below 0", o.ChunkBytes))
	}
	if o.After >= maxSeq-1 {
		errs = append(errs, fmt.Errorf("eventlog: After is %d, %w", o.After, ErrFull))
	}
	if o.ReserveSeqs > maxSeq/2 {
		errs = append(errs, fmt.Errorf("eventlog: ReserveSeqs is %d, above %d", o.ReserveSeqs, uint64(maxSeq/2)))
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 4 << 20
	}
	if o.ChunkBytes == 0 {
		o.ChunkBytes = 512 << 10
	}
	if o.ReserveSeqs == 0 {
		o.ReserveSeqs = 65536
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Damaged == nil {
		o.Damaged = func(error) {}
	}
	// frames begin at multiples of 8, and so the file should end at one
	o.SegmentBytes = (o.SegmentBytes + 7) &^ 7
	o.ChunkBytes = (o.ChunkBytes + 7) &^ 7
	return o, errors.Join(errs...)
}

// Log is the writer of a log. There is one at a time in all processes, the caller sees to that. Its methods are safe
// for concurrent use; appends take turns.
type Log struct {
	// immutable
	o   Options
	dir string
	id  ID

	// mu is the writer's turn and is held over its I/O: appends go to the file one after the other.
	mu         sync.Mutex
	next       uint64  // next record; beyond last+1 only between Open and StartTerm
	limit      uint64  // durable reservation: unsynced numbers stay below it
	current    segment // the last one; size is unused
	fresh      bool    // current holds no record
	appended   Position
	end        int64 // where the next frame goes
	filled     int64 // size of the file, zeros from end on
	started    bool  // StartTerm was called
	mustRotate bool  // a new segment was begun: a crash can bring its file back, so nothing may go to the old one
	buf        []byte

	// syncMu is held over every sync of a segment: the kernel tells of a failed write-back only once, so no two syncs
	// may overlap, and none may come after one that failed. Taken after mu.
	syncMu sync.Mutex
	file   vfs.File // of current; written under mu and syncMu, read under either

	walked marks                  // of what Open went over; immutable
	spare  atomic.Pointer[[]byte] // Open's buffer, for the first Reader

	retainMu sync.Mutex // one Retain at a time; taken before segMu
	retained bool       // Retain has deleted something; under retainMu
	segMu    sync.Mutex // never held over I/O
	segs     []segment  // ascending, the last is current; under segMu

	// atomic
	last    atomic.Uint64
	durable atomic.Uint64
	term    atomic.Uint64
	failed  atomic.Pointer[error] // the first failure, for good
	broken  chan struct{}         // closed with it
	closed  atomic.Bool           // set under mu and syncMu
}

// Position is a place between two records, for the next Open to begin at. The zero Position is none.
type Position struct {
	Segment uint64 // the number in its name
	Offset  int64
	Last    uint64 // the record before
	Term    uint64 // in force
	Limit   uint64 // reservation in force
}

// Position returns where the last Append has begun to write, none if that was at the beginning of a segment.
func (l *Log) Position() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appended
}

func (l *Log) position() Position {
	if l.fresh {
		return Position{}
	}
	return Position{Segment: l.current.first, Offset: l.end, Last: l.last.Load(), Term: l.term.Load(), Limit: l.limit}
}

// ID returns the identity of the database.
func (l *Log) ID() ID { return l.id }

// First returns the first sequence number that is still there. First == Last+1 means that there is none.
func (l *Log) First() uint64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	return min(l.segs[0].first, l.last.Load()+1)
}

// Last returns the last sequence number that was appended, Options.After when none ever was.
func (l *Log) Last() uint64 { return l.last.Load() }

// Durable returns up to where the log is known to survive a power cut.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Term returns the term in force, 0 before the first.
func (l *Log) Term() uint64 { return l.term.Load() }

// StartTerm appends the record that begins the next term at the time t. It must come before the first Append. Its
// sequence number may leave a gap, which lies over all numbers that a leader before may have given to entries that a
// power cut took. It is durable with the next sync, that of an Append or Sync, along with what Open found and did not
// know to be: before that nobody must be told of any of it. Errors are those of Append.
func (l *Log) StartTerm(t time.Time) (term, seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return 0, 0, err
	}
	if l.next >= maxSeq-1 {
		return 0, 0, ErrFull
	}
	if err := l.makeRoom(frameSize(termPayload)); err != nil {
		return 0, 0, err
	}
	term, seq = l.term.Load()+1, l.next
	b := appendTermFrame(l.buf[:0], l.current.crc, seq, l.durable.Load(), term, l.last.Load(), t.UnixNano())
	if err := l.write(b); err != nil {
		return 0, 0, err
	}
	l.advance(seq)
	l.term.Store(term)
	l.started = true
	return term, seq, nil
}

// Append appends entries with ascending sequence numbers and returns the first of them. The entries are copied. With
// sync it returns after they are durable, along with all that was appended before; without it they survive the death of
// the process but not a power cut, and the number of an entry lost like that is not used again.
//
// After an error nothing was appended and the log goes on (a full disk: errors.Is(err, syscall.ENOSPC), or EDQUOT), except
// when the error is ErrFailed: then it is unknown what became of the entries.
func (l *Log) Append(entries [][]byte, sync bool) (first uint64, err error) {
	sync = sync && !mutant.AckBeforeSync
	size := int64(reserveSize)
	for _, e := range entries {
		if len(e) > MaxEntry {
			return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(e), MaxEntry)
		}
		size += frameSize(len(e))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return 0, err
	}
	if !l.started {
		return 0, ErrNoTerm
	}
	if len(entries) == 0 {
		return l.next, nil
	}
	if l.next+uint64(len(entries))+l.o.ReserveSeqs >= maxSeq {
		return 0, ErrFull
	}
	if err := l.makeRoom(size); err != nil {
		return 0, err
	}
	first = l.next
	last := first + uint64(len(entries)) - 1
	synced := l.durable.Load()
	b := l.buf[:0]
	for i, e := range entries {
		b = appendFrame(b, l.current.crc, KindEntry, first+uint64(i), synced, e)
	}
	limit := l.limit
	if !sync && last >= l.limit {
		// A power cut may take entries whose numbers were seen. The reservation is durable before the first such
		// number is returned, and whoever opens the log then starts above it.
		limit = last + l.o.ReserveSeqs
		b = appendReserveFrame(b, l.current.crc, last, synced, limit)
		sync = true
	}
	at := l.position()
	if err := l.write(b); err != nil {
		return 0, err
	}
	l.advance(last)
	l.appended = at
	if sync {
		if err := l.syncTo(last); err != nil {
			return 0, err
		}
	}
	l.limit = limit
	return first, nil
}

// Sync returns when all that was appended before the call is durable. It does not wait for appends in progress, except
// for their syncs. An error is ErrFailed or ErrClosed.
func (l *Log) Sync() error { return l.syncTo(l.last.Load()) }

// Close ends the log cleanly: all is durable, and sequence numbers go on without a gap after the next Open. After an
// error entries are as durable as Durable said, and numbers may skip. The log is closed in any case.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil
	}
	err := l.lift()
	return errors.Join(err, l.closeFile())
}

// lift makes everything durable and then ends the reservation.
func (l *Log) lift() error {
	if err := l.usable(); err != nil {
		return err
	}
	last := l.last.Load()
	if err := l.syncTo(last); err != nil {
		return err
	}
	if !l.started {
		return nil // the reservation of the leader before is still needed
	}
	if err := l.extend(reserveSize); err != nil {
		return err
	}
	// synced names the last entry now, so that a bit lost in it later is known to be corruption
	if err := l.write(appendReserveFrame(l.buf[:0], l.current.crc, last, last, last+1)); err != nil {
		return err
	}
	return l.syncFile()
}

// Abort closes the files and promises nothing: the next Open finds what a killed process leaves behind.
func (l *Log) Abort() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil
	}
	return l.closeFile()
}

func (l *Log) closeFile() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.closed.Store(true)
	err := l.file.Close()
	l.file = nil
	return err
}

func (l *Log) usable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return l.failure()
}

func (l *Log) failure() error {
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Failed is closed when the log has failed (ErrFailed): by an append, or by a Sync in another goroutine.
func (l *Log) Failed() <-chan struct{} { return l.broken }

// Err returns why the log has failed, nil if it has not.
func (l *Log) Err() error { return l.failure() }

// fail ends the log for good and returns what every later call will.
func (l *Log) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if l.failed.CompareAndSwap(nil, &err) {
		close(l.broken)
	}
	return l.failure()
}
