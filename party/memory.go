package party

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// memoryEvery is how many bytes of log the memory file may be behind, about: that much the
// next leader reads before it takes writes.
const memoryEvery = 64 << 10

// maxMemory bounds what is read of a memory file; the largest has some hundred kilobytes.
const maxMemory = 16 << 20

// memoryFile is where the leader writes down who wrote what (apply.Machine.Memory), so that the
// next one takes writes before its Pebble is open. It may be old, of any point of the log's
// past. It may be damaged or missing, as nothing of it is synced: then Pebble is opened first.
// But it must never be of entries that the log does not have, which a power cut could
// bring about: it is written when the log is durable up to there, and who opens Pebble first
// removes it before the term begins.
type memoryFile struct {
	path string
	fs   vfs.FS
	file vfs.File // nil until the first time

	buf   []byte
	seq   uint64 // buf is of; 0: nothing is to be written
	since int    // bytes of log that came behind what was noted last
}

func newMemoryFile(path string, fs vfs.FS) *memoryFile {
	return &memoryFile{path: path, fs: fs, since: memoryEvery}
}

// note notes, and writes, what is due. The goroutine that judges calls it, between groups.
func (f *memoryFile) note(m *apply.Machine, log *eventlog.Log) error {
	if f.seq == 0 && f.since >= memoryEvery {
		f.seq, f.since = log.Last(), 0
		f.buf = m.Memory(f.buf[:0], f.seq, log.Position())
	}
	if f.seq == 0 || log.Durable() < f.seq {
		return nil
	}
	f.seq = 0
	if f.file == nil {
		var err error
		if f.file, err = f.fs.OpenReadWrite(f.path, vfs.WriteCategoryUnspecified); err != nil {
			return fmt.Errorf("open the memory file: %w", err)
		}
	}
	if _, err := f.file.WriteAt(f.buf, 0); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

func (f *memoryFile) close() {
	if f.file != nil {
		_ = f.file.Close() // what was written is not synced either
	}
}

// read returns what the file holds, nothing if there is none.
func (f *memoryFile) read() ([]byte, error) {
	file, err := f.fs.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxMemory))
	return b, errors.Join(err, file.Close())
}

func (f *memoryFile) remove() error {
	if err := f.fs.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old memory file: %w", err)
	}
	return nil
}
