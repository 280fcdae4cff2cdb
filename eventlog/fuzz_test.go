package eventlog_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// mend sets the checksums of a segment right wherever its lengths lead, so that the fuzzer gets behind them.
func mend(b []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	if len(b) < 128 {
		return
	}
	crc := crc32.Checksum(b[:124], table)
	binary.LittleEndian.PutUint32(b[124:], crc)
	for at := 128; at+32 <= len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+4:]))
		if n > len(b)-at-32 || n == 0 && b[at+24] == 0 {
			return
		}
		binary.LittleEndian.PutUint32(b[at:], crc32.Update(crc, table, b[at+4:at+32+n]))
		at += 32 + (n+7)&^7
	}
}

// FuzzSegment opens arbitrary bytes as the last segment. When that works, the reader must agree with what it says.
func FuzzSegment(f *testing.F) {
	_, b, _ := written(f, "six", "seven")
	for _, n := range []int{0, 64, 128, 200, 300, len(b)} {
		f.Add(b[:n], true, uint64(0))
		f.Add(b[:n], false, uint64(4))
	}
	f.Fuzz(func(t *testing.T, b []byte, mended bool, hint uint64) {
		if len(b) > 1<<16 {
			return
		}
		fs := memFS(t)
		must(t, fs.MkdirAll(logDir, 0o700))
		if mended {
			mend(b)
		}
		put(t, fs, fs.PathJoin(logDir, "00000000000000000001.log"), b)
		seen, _ := read(fs, logDir, 0, all) // must not panic
		o := small(fs)
		o.DurableHint = hint
		l, err := eventlog.Open(logDir, o)
		if err != nil {
			return
		}
		defer l.Abort()
		if l.Last() < hint || l.Durable() > l.Last() {
			t.Fatalf("last %d, durable %d, hint %d", l.Last(), l.Durable(), hint)
		}
		got, err := read(fs, logDir, 0, all)
		if err != nil {
			t.Fatalf("opened, but a reader says %v", err)
		}
		last := l.First() - 1
		if len(got) > 0 {
			last = got[len(got)-1].seq
		}
		if last != l.Last() || len(seen) > 0 && len(seen) != len(got) {
			t.Fatalf("last is %d; a reader came to %d, %d records before Open and %d after", l.Last(), last, len(seen), len(got))
		}
		if _, _, err := l.StartTerm(time.Unix(1, 0)); err != nil {
			if !errors.Is(err, eventlog.ErrFull) {
				t.Fatal(err)
			}
			return
		}
		if _, err := l.Append([][]byte{[]byte("more")}, false); err != nil && !errors.Is(err, eventlog.ErrFull) {
			t.Fatal(err)
		}
		if more, err := read(fs, logDir, 0, all); err != nil || more[len(more)-1].seq != l.Last() {
			t.Fatalf("read %d records after appending, %v", len(more), err)
		}
	})
}

// FuzzCommit opens arbitrary bytes as a commit word, to read and to lead.
func FuzzCommit(f *testing.F) {
	path := filepath.Join(f.TempDir(), "commit")
	c, err := eventlog.OpenCommit(path, testID)
	must(f, err)
	must(f, c.Close())
	b, err := os.ReadFile(path)
	must(f, err)
	f.Add(b)
	f.Add(b[:36])
	f.Add(b[:4095])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 10000 {
			return
		}
		path := filepath.Join(t.TempDir(), "commit")
		must(t, os.WriteFile(path, b, 0o600))
		if r, err := eventlog.ReadCommit(path); err == nil {
			_, _, _ = r.Term(), r.Committed(), r.Durable()
			must(t, r.Close())
		}
		w, err := eventlog.OpenCommit(path, testID)
		if err != nil {
			if !errors.Is(err, eventlog.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		w.SetCommitted(5)
		must(t, w.Close())
	})
}
