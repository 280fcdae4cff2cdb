package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/edsrzf/mmap-go"

	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

const (
	commitMagic = "PPARTCOM"
	commitSize  = 4096

	// the words stand in cache lines of their own
	commitTerm      = 128
	commitCommitted = 256
	commitDurable   = 384
)

// Commit is the commit word: three numbers in a small memory-mapped file, written by the leader and seen by all processes
// at once. While the kernel lives they are the truth, also after the leader was killed. After a power cut they are a
// hint: Term and Committed may be ahead of the log or behind it, Durable is never ahead.
//
// All methods are safe for concurrent use, Close included. The numbers of a closed Commit stay what they were.
type Commit struct {
	id       ID
	readOnly bool
	words    atomic.Pointer[commitWords]
}

// commitWords is a mapping, or heap memory that stands for one. It is unmapped when nobody can reach it any more, not by
// Close: a load in another goroutine would be a fault that nothing can recover from.
type commitWords struct {
	term, committed, durable *atomic.Uint64
}

func newCommitWords(b []byte) *commitWords {
	at := func(off int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b[off])) }
	return &commitWords{term: at(commitTerm), committed: at(commitCommitted), durable: at(commitDurable)}
}

// OpenCommit opens the commit word for the leader. One that is there is taken over when it is whole and belongs to the
// database id; otherwise a new one with zeros takes its place, and processes that mapped the one before see it only
// after another ReadCommit. One of a newer version is left alone: ErrVersion.
func OpenCommit(path string, id ID) (*Commit, error) {
	c, err := mapCommit(path, mmap.RDWR)
	if err == nil && c.id == id {
		return c, nil
	}
	if err == nil {
		_ = c.Close()
	}
	if errors.Is(err, ErrVersion) {
		return nil, err
	}
	if err := createCommit(path, id); err != nil {
		return nil, fmt.Errorf("create commit word %s: %w", path, err)
	}
	return mapCommit(path, mmap.RDWR)
}

// ReadCommit opens the commit word of a leader, to look at only. Errors: os.ErrNotExist, ErrForeign for a file that is no
// commit word, ErrCorrupt for a damaged one, ErrVersion. The caller compares ID.
func ReadCommit(path string) (*Commit, error) { return mapCommit(path, mmap.RDONLY) }

// CreateCommit makes a commit word of zeros that lives no longer than the kernel does: nothing is synced. One that is
// there is replaced. It serves processes to tell each other something, with the guarantees of memory.
func CreateCommit(path string, id ID) (*Commit, error) {
	if err := writeCommit(path, id, func(*os.File) error { return nil }); err != nil {
		return nil, fmt.Errorf("create commit word %s: %w", path, err)
	}
	return mapCommit(path, mmap.RDWR)
}

// AlterCommit opens a commit word that is there, to write to it. The errors are those of ReadCommit.
func AlterCommit(path string) (*Commit, error) { return mapCommit(path, mmap.RDWR) }

func newMemWords() *commitWords {
	return &commitWords{term: new(atomic.Uint64), committed: new(atomic.Uint64), durable: new(atomic.Uint64)}
}

func createCommit(path string, id ID) error {
	// A power cut must not leave the name of an empty file,
	if err := writeCommit(path, id, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(vfs.Default, filepath.Dir(path)) // nor two leaders with two files
}

// writeCommit writes the file beside and renames it: nobody ever maps a half one, whose missing blocks would be a bus
// error on a full disk.
func writeCommit(path string, id ID, sync func(*os.File) error) error {
	b := make([]byte, commitSize)
	copy(b, commitMagic)
	binary.LittleEndian.PutUint32(b[8:], version)
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	beside := path + ".new"
	f, err := os.OpenFile(beside, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, sync(f), f.Close())
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return nil
}

func mapCommit(path string, prot int) (*Commit, error) {
	flag := os.O_RDONLY
	if prot == mmap.RDWR {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("open commit word: %w", err)
	}
	defer f.Close() // the mapping stays
	head := make([]byte, commitTerm)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read commit word %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat commit word %s: %w", path, err)
	}
	id, err := decodeCommit(head[:n], info.Size(), path)
	if err != nil {
		return nil, err
	}
	m, err := mmap.MapRegion(f, commitSize, prot, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("map commit word %s: %w", path, err)
	}
	c := &Commit{id: id, readOnly: prot == mmap.RDONLY}
	w := newCommitWords(m)
	runtime.AddCleanup(w, func(m mmap.MMap) { _ = m.Unmap() }, m)
	c.words.Store(w)
	return c, nil
}

// decodeCommit checks the beginning of a commit word file and returns its database.
func decodeCommit(b []byte, size int64, path string) (ID, error) {
	if len(b) < 36 || string(b[:8]) != commitMagic {
		return ID{}, fmt.Errorf("%w: %s is not a commit word", ErrForeign, path)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > version {
		return ID{}, fmt.Errorf("%w: %s has format version %d, this software reads %d: upgrade it", ErrVersion, path, v, version)
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.LittleEndian.Uint32(b[32:]) {
		return ID{}, &CorruptError{File: path, Reason: "checksum of the commit word's header is wrong"}
	}
	if size != commitSize {
		return ID{}, &CorruptError{File: path, Reason: fmt.Sprintf("commit word has %d bytes, not %d", size, commitSize)}
	}
	return ID(b[16:32]), nil
}

// ID returns the database the commit word belongs to.
func (c *Commit) ID() ID { return c.id }

// Term returns the term of the last leader.
func (c *Commit) Term() uint64 { return c.load(func(w *commitWords) *atomic.Uint64 { return w.term }) }

// Committed returns up to where the log is committed. Whoever sees a number sees all that its leader wrote before it.
func (c *Commit) Committed() uint64 {
	return c.load(func(w *commitWords) *atomic.Uint64 { return w.committed })
}

// Durable returns up to where the log is durable.
func (c *Commit) Durable() uint64 {
	return c.load(func(w *commitWords) *atomic.Uint64 { return w.durable })
}

// SetTerm sets the term. It panics on a Commit of ReadCommit, as do the other setters.
func (c *Commit) SetTerm(v uint64) {
	c.store(func(w *commitWords) *atomic.Uint64 { return w.term }, v)
}

// SetCommitted sets up to where the log is committed, after those entries are written and before anybody is told.
func (c *Commit) SetCommitted(v uint64) {
	if mutant.LateWord {
		c.setLate(v)
		return
	}
	c.store(func(w *commitWords) *atomic.Uint64 { return w.committed }, v)
}

// SetDurable sets up to where the log is durable, after the sync.
func (c *Commit) SetDurable(v uint64) {
	c.store(func(w *commitWords) *atomic.Uint64 { return w.durable }, v)
}

func (c *Commit) load(word func(*commitWords) *atomic.Uint64) uint64 {
	w := c.words.Load()
	v := word(w).Load()
	runtime.KeepAlive(w) // or it could be unmapped under the load
	return v
}

func (c *Commit) store(word func(*commitWords) *atomic.Uint64, v uint64) {
	if c.readOnly {
		panic("eventlog: commit word of another process was set")
	}
	w := c.words.Load()
	word(w).Store(v)
	runtime.KeepAlive(w)
}

// Close lets go of the file. The mapping itself ends with a later garbage collection, so Windows may refuse to delete
// the file for a while. Further calls do nothing.
func (c *Commit) Close() error {
	w := newMemWords()
	w.term.Store(c.Term())
	w.committed.Store(c.Committed())
	w.durable.Store(c.Durable())
	c.words.Store(w)
	return nil
}
