package eventlog_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// writerProcess is what the test binary does in a second process: it appends until its input ends, as leaders that
// follow each other, and tells through the commit word.
func writerProcess(dir string) int {
	stop := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		close(stop)
	}()
	o := eventlog.Options{SegmentBytes: 20000, ChunkBytes: 4096, ID: testID}
	c, err := eventlog.OpenCommit(filepath.Join(dir, "commit"), testID)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	for n := 0; ; {
		l, err := eventlog.Open(filepath.Join(dir, "log"), o)
		if err == nil {
			_, _, err = l.StartTerm(time.Unix(1, 0))
		}
		for i := 0; err == nil && i < 700; i++ {
			seq := l.Last() + 1
			group := [][]byte{[]byte(content(seq)), []byte(content(seq + 1)), []byte(content(seq + 2))}
			_, err = l.Append(group, n%97 == 0)
			c.SetCommitted(l.Last())
			c.SetDurable(l.Durable())
			if n == 0 {
				fmt.Println("ready")
			}
			n++
		}
		if err == nil {
			err = l.Abort()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		select {
		case <-stop:
			return 0
		default:
		}
	}
}

// content is what entry seq holds in these tests.
func content(seq uint64) string { return entry(int(seq), int(seq*37%400)) }

func TestReader_TailsAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "EVENTLOG_WRITER="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("writer said %q, %v", line, err)
	}
	c, err := eventlog.ReadCommit(filepath.Join(dir, "commit"))
	must(t, err)
	defer c.Close()
	if c.ID() != testID {
		t.Fatalf("commit word of %v", c.ID())
	}
	r, err := eventlog.OpenReader(nil, filepath.Join(dir, "log"), 0)
	must(t, err)
	defer r.Close()
	last := uint64(0)
	// returns with everything up to the commit word read
	follow := func() {
		limit := c.Committed()
		for last < limit {
			rec, ok, err := r.Next(limit)
			if err != nil || !ok {
				t.Fatalf("record behind %d with limit %d: %v, %v", last, limit, ok, err)
			}
			if rec.Kind == eventlog.KindEntry && (rec.Seq != last+1 || string(rec.Payload) != content(rec.Seq)) {
				t.Fatalf("record %d behind %d is wrong", rec.Seq, last)
			}
			last = rec.Seq
		}
	}
	for deadline := time.Now().Add(20 * time.Second); last < 20000; follow() {
		if time.Now().After(deadline) {
			t.Fatalf("read %d records only in 20 seconds", last)
		}
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	follow()
	if got := c.Committed(); got != last {
		t.Fatalf("read to %d, committed is %d", last, got)
	}
}

func TestReader_TailsInProcess(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	var committed atomic.Uint64
	committed.Store(1)
	done := make(chan error, 1)
	const total = 5000
	go func() {
		r, err := eventlog.OpenReader(fs, logDir, 0)
		if err != nil {
			done <- err
			return
		}
		defer r.Close()
		for last := uint64(0); last < total; {
			limit := committed.Load()
			rec, ok, err := r.Next(limit)
			switch {
			case err != nil:
				done <- err
				return
			case ok != (last < limit), ok && rec.Seq != last+1, ok && rec.Kind == eventlog.KindEntry && string(rec.Payload) != content(rec.Seq):
				done <- fmt.Errorf("record behind %d with limit %d: %v %d", last, limit, ok, rec.Seq)
				return
			case ok:
				last = rec.Seq
			}
		}
		done <- nil
	}()
	for l.Last() < total {
		seq := l.Last() + 1
		add(t, l, seq%7 == 0, content(seq), content(seq+1))
		committed.Store(l.Last())
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestReader_NeverBeyondTheLimit(t *testing.T) {
	fs, h, _, l := hooked(t)
	r, err := eventlog.OpenReader(fs, logDir, 0)
	must(t, err)
	defer r.Close()
	next := func(limit uint64) (string, bool) {
		t.Helper()
		rec, ok, err := r.Next(limit)
		must(t, err)
		return string(rec.Payload), ok
	}
	if _, ok := next(1); !ok {
		t.Fatal("no term record")
	}
	if _, ok := next(1); ok {
		t.Fatal("a record behind the limit")
	}
	// The reader's buffer comes to hold a group that fails half-way and is wiped. Other entries get its numbers.
	add(t, l, true, "two")
	writes := 0
	h.reset(func(o op) (int, error) {
		if o.kind != "write" {
			return 0, nil
		}
		switch writes++; writes {
		case 1: // the frames: all of them arrive, and it fails all the same
			return o.n, errDisk
		case 2: // the wiping: just before it, the reader reads ahead
			if s, ok := next(2); !ok || s != "two" {
				t.Errorf("got %q, %v", s, ok)
			}
		}
		return 0, nil
	})
	if _, err := l.Append([][]byte{[]byte("old three"), []byte("old four")}, true); !errors.Is(err, errDisk) {
		t.Fatalf("append: %v", err)
	}
	add(t, l, true, "new three", "new four")
	for _, want := range []string{"new three", "new four"} {
		if s, ok := next(4); !ok || s != want {
			t.Fatalf("got %q, %v, want %q", s, ok, want)
		}
	}
}

func TestReader_WaitsForTheFirstSegment(t *testing.T) {
	fs := memFS(t)
	if _, err := eventlog.OpenReader(fs, logDir, 0); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("reader of nothing: %v", err)
	}
	must(t, fs.MkdirAll(logDir, 0o700))
	put(t, fs, fs.PathJoin(logDir, "00000000000000000001.log"), nil)
	if _, err := eventlog.OpenReader(fs, logDir, 0); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("reader of a segment that is being created: %v", err)
	}
	l := lead(t, small(fs))
	r, err := eventlog.OpenReader(fs, logDir, 3) // ahead of the log
	must(t, err)
	defer r.Close()
	if _, ok, err := r.Next(1); ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	add(t, l, true, "two", "three")
	if rec, ok, err := r.Next(3); !ok || err != nil || string(rec.Payload) != "three" {
		t.Fatalf("%v, %v, %v", rec, ok, err)
	}
	must(t, r.Close())
	must(t, r.Close())
	if _, _, err := r.Next(3); !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestReader_ReportsDamageInEverySegment(t *testing.T) {
	fs := memFS(t)
	l := lead(t, small(fs))
	for i := range 30 {
		add(t, l, true, entry(i, 300))
	}
	must(t, l.Close())
	names, err := fs.List(logDir)
	must(t, err)
	for _, name := range names {
		path := fs.PathJoin(logDir, name)
		b := contents(t, fs, path)
		bad := append([]byte(nil), b...)
		bad[128+32+10] ^= 4
		put(t, fs, path, bad)
		var ce *eventlog.CorruptError
		if _, err := read(fs, logDir, 0, all-1); !errors.As(err, &ce) || ce.File != path || ce.Offset != 128 || ce.Seq == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		put(t, fs, path, b)
	}
	slices.Sort(names)
	must(t, fs.Remove(fs.PathJoin(logDir, names[2])))
	if _, err := read(fs, logDir, 0, all); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Fatalf("reader, a segment missing: %v", err)
	}
	must(t, open(t, small(fs)).Abort()) // which concerns only those who read there
	must(t, fs.Remove(fs.PathJoin(logDir, names[len(names)-2])))
	if _, err := eventlog.Open(logDir, small(fs)); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Fatalf("opened, the segment before the last missing: %v", err)
	}
}

// A segment that could not be made, and was made anew, may have been opened by a reader in between.
func TestReader_LeavesASegmentThatWasMadeAnew(t *testing.T) {
	fs, h, _, l := hooked(t)
	var r *eventlog.Reader
	h.reset(func(o op) (int, error) {
		if o.kind != "syncdir" || r != nil {
			return 0, nil
		}
		var err error
		r, err = eventlog.OpenReader(fs, logDir, 2)
		must(t, err)
		return 0, syscall.ENOSPC
	})
	if _, err := l.Append([][]byte{make([]byte, 2000)}, true); !errors.Is(err, syscall.ENOSPC) || r == nil {
		t.Fatalf("append: %v", err)
	}
	defer r.Close()
	add(t, l, true, "two")
	if rec, ok, err := r.Next(2); !ok || err != nil || string(rec.Payload) != "two" {
		t.Fatalf("%v, %v, %v", rec, ok, err)
	}
}

// listFS calls back after a folder was listed.
type listFS struct {
	vfs.FS
	before func()
}

func (f *listFS) List(dir string) ([]string, error) {
	if b := f.before; b != nil {
		f.before = nil
		b()
	}
	return f.FS.List(dir)
}

// What is appended while the reader looks for the next segment is neither skipped nor taken for damage.
func TestReader_LooksAgainWhereItStood(t *testing.T) {
	for _, n := range []int{1, 3, 30} { // in the same segment, and into others
		fs := memFS(t)
		l := lead(t, small(fs))
		lfs := &listFS{FS: fs}
		r, err := eventlog.OpenReader(lfs, logDir, 2)
		must(t, err)
		lfs.before = func() {
			for i := range n {
				add(t, l, true, entry(i, 400))
			}
		}
		for i := range n {
			if rec, ok, err := r.Next(all); !ok || err != nil || string(rec.Payload) != entry(i, 400) {
				t.Fatalf("%d of %d: %v, %v, %v", i, n, rec.Seq, ok, err)
			}
		}
		must(t, r.Close())
		must(t, l.Abort())
	}
}

// A reader of the process that writes the log begins where recovery came by, and sees
// what any other does.
func TestLog_OpenReader(t *testing.T) {
	fs := memFS(t)
	o := eventlog.Options{FS: fs, SegmentBytes: 400 << 10}
	l := lead(t, o)
	for i := range 500 {
		add(t, l, false, entry(i, 1000+i%7*100))
	}
	must(t, l.Abort()) // numbers that were promised are skipped
	l = lead(t, o)
	for i := range 300 {
		add(t, l, true, entry(i, 1000+i%5*100))
		if i == 250 {
			must(t, l.Abort())
			l = lead(t, o)
		}
	}
	must(t, l.Abort())
	var first uint64
	if _, err := fmt.Sscanf(filepath.Base(lastFile(t, fs)), "%d.log", &first); err != nil {
		t.Fatal(err)
	}
	l = lead(t, o)
	walked := l.Last()
	add(t, l, true, "behind what was walked", entry(1, 300<<10), entry(2, 300<<10))
	last := l.Last()
	recs := mustRead(t, fs, 0)
	froms := []uint64{0, last + 1, last + 2}
	for _, rec := range recs {
		froms = append(froms, rec.seq, rec.seq-1)
	}
	want := func(from uint64) []rec {
		for i, rec := range recs {
			if rec.seq >= from {
				return recs[i:min(i+3, len(recs))]
			}
		}
		return nil
	}
	again, err := l.OpenReader(last)
	must(t, err)
	most := int64(0)
	for _, from := range froms {
		r, err := l.OpenReader(from)
		must(t, err)
		must(t, again.Rewind(from))
		for _, r := range []*eventlog.Reader{r, again} {
			before := r.Passed()
			for i, w := range want(from) {
				got, ok, err := r.Next(last)
				if err != nil || !ok || (rec{got.Seq, got.Term, got.Kind, string(got.Payload)}) != w {
					t.Fatalf("from %d: record %d is %d of term %d, %v; want %d of term %d", from, i, got.Seq, got.Term, err, w.seq, w.term)
				}
				if i == 0 && first <= from && from <= walked {
					most = max(most, r.Passed()-before)
				}
			}
		}
		must(t, r.Close())
	}
	if most == 0 || most > 70<<10 {
		t.Errorf("%d bytes were gone through before the first record", most)
	}
	must(t, again.Close())
}
