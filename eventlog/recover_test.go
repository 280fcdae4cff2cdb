package eventlog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// written returns a log with synced entries and a last unsynced group, its only file, and what is in it.
func written(t testing.TB, unsynced ...string) (path string, b []byte, recs []rec) {
	fs := memFS(t)
	o := small(fs)
	o.SegmentBytes = 16384
	l := lead(t, o)
	add(t, l, true, "two", "three")
	add(t, l, true, "four")
	if len(unsynced) > 0 {
		add(t, l, false, "five") // takes the reservation along
		add(t, l, false, unsynced...)
	}
	must(t, l.Abort())
	path = lastFile(t, fs)
	return path, contents(t, fs, path), mustRead(t, fs, 0)
}

func TestLog_ResumesAfterTornTail(t *testing.T) {
	path, b, recs := written(t, "six", entry(7, 50))
	end := len(strings.TrimRight(string(b), "\x00"))
	full := (end + 7) / 8 * 8
	start := full - 40 - (32+len(entry(7, 50))+7)/8*8
	for cut := start; cut < end; cut++ {
		for _, how := range []string{"zeros", "short file", "garbage behind"} {
			fs := memFS(t)
			must(t, fs.MkdirAll(logDir, 0o700))
			torn := slices.Clone(b[:cut])
			switch how {
			case "zeros":
				torn = append(torn, make([]byte, len(b)-cut)...)
			case "garbage behind":
				for len(torn) < len(b) {
					torn = append(torn, byte(len(torn)*7)|1)
				}
			}
			put(t, fs, path, torn)
			l, err := eventlog.Open(logDir, small(fs))
			if err != nil {
				t.Fatalf("cut at %d, %s: %v", cut, how, err)
			}
			last := uint64(5)
			if cut >= start+40 {
				last = 6
			}
			if how != "garbage behind" && l.Last() != last && !(l.Last() == last+1 && cut >= start+35) {
				t.Fatalf("cut at %d, %s: last is %d, want %d", cut, how, l.Last(), last)
			}
			kept := l.Last()
			_, seq, err := l.StartTerm(time.Unix(1, 0))
			must(t, err)
			if seq <= 7 {
				t.Fatalf("term record at %d, a number that was given to an entry", seq)
			}
			add(t, l, true, "new")
			must(t, l.Close())
			want := append(slices.Clone(recs[:kept]), rec{seq, 2, eventlog.KindTerm, ""}, rec{seq + 1, 2, eventlog.KindEntry, "new"})
			if got := mustRead(t, fs, 0); !slices.Equal(got, want) {
				t.Fatalf("cut at %d, %s: log holds %v, want %v", cut, how, got, want)
			}
			l, err = eventlog.Open(logDir, small(fs))
			must(t, err)
			must(t, l.Abort())
		}
	}
}

// Every bit of a small log, flipped: the log is corrupt, or what is left is right and lacks the last group at most.
func TestLog_NeverWrongAfterBitFlip(t *testing.T) {
	for _, c := range []struct {
		name     string
		unsynced []string
		hint     uint64
		least    uint64 // last record that may not be missing silently
	}{
		{"synced, no hint", nil, 0, 3},
		{"synced, hint", nil, 4, 4},
		{"unsynced, no hint", []string{"six", "seven"}, 0, 3},
		{"unsynced, hint", []string{"six", "seven"}, 5, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, b, recs := written(t, c.unsynced...)
			reported := 0
			for i := range len(b) * 8 {
				if i/8 > 600 && i%61 != 0 {
					continue // in the zeros
				}
				if testing.Short() && i%11 != 3 {
					continue
				}
				fs := memFS(t)
				must(t, fs.MkdirAll(logDir, 0o700))
				bad := slices.Clone(b)
				bad[i/8] ^= 1 << (i % 8)
				put(t, fs, path, bad)
				got, rerr := read(fs, logDir, 0, uint64(len(recs)))
				if len(got) > len(recs) || !slices.Equal(got, recs[:len(got)]) {
					t.Fatalf("bit %d: a reader gets %v", i, got)
				}
				if rerr == nil && uint64(len(got)) < c.least {
					t.Fatalf("bit %d: a reader stops at %d in silence", i, len(got))
				}
				o := small(fs)
				o.DurableHint = c.hint
				l, err := eventlog.Open(logDir, o)
				if err != nil {
					if !errors.Is(err, eventlog.ErrCorrupt) && !errors.Is(err, eventlog.ErrForeign) && !errors.Is(err, eventlog.ErrVersion) {
						t.Fatalf("bit %d: %v", i, err)
					}
					reported++
					continue
				}
				if l.Last() < c.least {
					t.Fatalf("bit %d: last is %d in silence", i, l.Last())
				}
				must(t, l.Abort())
				if got := mustRead(t, fs, 0); !slices.Equal(got, recs[:len(got)]) || uint64(len(got)) != l.Last() {
					t.Fatalf("bit %d: log holds %v to %d", i, got, l.Last())
				}
			}
			if reported == 0 {
				t.Fatal("nothing was reported")
			}
		})
	}
}

// An old frame behind a cut, of just the right number, must not come back behind new ones of the same size.
func TestLog_StaleFrameDoesNotComeBack(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.SegmentBytes = 16384
	l := lead(t, o)
	add(t, l, true, "two")
	h := l.Last()
	at := 128 + 56 + 40
	// a group of three in one write, whose first frame is lost
	add(t, l, true, "old  3", "old  4", "old  5")
	must(t, l.Abort())
	path := lastFile(t, fs)
	b := contents(t, fs, path)
	clear(b[at : at+40])
	put(t, fs, path, b)
	l = open(t, o)
	if l.Last() != h {
		t.Fatalf("last is %d", l.Last())
	}
	if b := contents(t, fs, path); strings.Contains(string(b), "old") {
		t.Fatal("the old frames are still there")
	}
	must(t, l.Abort())
	// and again with the term record in the place of the first one: its size is another, so try entries too
	l = lead(t, o)
	add(t, l, true, "new  4")
	must(t, l.Abort())
	must(t, open(t, o).Abort())
	if got := mustRead(t, fs, 0); len(got) != 4 || got[3].payload != "new  4" {
		t.Fatalf("log holds %v", got)
	}
}

// Frames of an append that failed may be on the disk already. A power cut before the next sync must not bring them back.
func TestLog_WipedFramesStayWiped(t *testing.T) {
	fs := memFS(t)
	h := &hookFS{FS: fs}
	o := small(fs)
	o.FS, o.SegmentBytes = h, 16384
	l := lead(t, o)
	add(t, l, false, "two") // takes the reservation
	must(t, l.Sync())
	n := 0
	h.reset(func(x op) (int, error) {
		if x.kind == "write" {
			if n++; n == 1 {
				return x.n, errDisk
			}
			if n == 2 { // the kernel writes the frames back just before they are wiped
				f, err := fs.Open(x.path)
				must(t, err)
				must(t, f.Sync())
				must(t, f.Close())
			}
		}
		return 0, nil
	})
	if _, err := l.Append([][]byte{[]byte("old  3"), []byte("old  4")}, false); !errors.Is(err, errDisk) {
		t.Fatalf("append: %v", err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	if b := contents(t, crashed, lastFile(t, crashed)); strings.Contains(string(b), "old") {
		t.Fatal("the failed frames would come back")
	}
	must(t, l.Abort())
}

func TestLog_TellsTornTailFromCorruption(t *testing.T) {
	const header, term, small1 = 128, 56, 40
	for _, c := range []struct {
		name    string
		sync    bool // of each of the entries 2 3 4
		hint    uint64
		lost    uint64 // entry that is zeroed
		corrupt bool
		last    uint64
	}{
		{"written out of order", false, 0, 3, false, 2},
		{"the last synced one", true, 0, 4, false, 3},
		{"the last synced one, and it is known", true, 4, 4, true, 0},
		{"a synced one", true, 0, 3, true, 0},
		{"a synced one, known less", true, 2, 3, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memFS(t)
			o := small(fs)
			o.SegmentBytes = 16384
			l := lead(t, o)
			at := int64(header + term)
			for i := range 3 {
				if uint64(i+2) < c.lost {
					at += small1
				}
				add(t, l, c.sync, fmt.Sprint("entry", i))
				if i == 0 && !c.sync {
					at += small1 // the reservation
				}
			}
			must(t, l.Abort())
			path := lastFile(t, fs)
			b := contents(t, fs, path)
			clear(b[at : at+small1])
			put(t, fs, path, b)
			o.DurableHint = c.hint
			l, err := eventlog.Open(logDir, o)
			var ce *eventlog.CorruptError
			if c.corrupt {
				if !errors.As(err, &ce) || ce.File != path || ce.Offset != at || ce.Seq != c.lost {
					t.Fatalf("got %v, want corruption at %d, %d", err, at, c.lost)
				}
				if got := contents(t, fs, path); !slices.Equal(got, b) {
					t.Fatal("the damaged file was changed")
				}
				return
			}
			must(t, err)
			if l.Last() != c.last {
				t.Fatalf("last is %d, want %d", l.Last(), c.last)
			}
			must(t, l.Abort())
		})
	}
}

// Bytes in an entry that are frames of a log are not taken for proof that a torn entry had been durable.
func TestLog_FramesInsideAnEntryProveNothing(t *testing.T) {
	_, other, _ := written(t, "six", "seven")
	fs := memFS(t)
	o := small(fs)
	o.SegmentBytes = 65536
	l := lead(t, o)
	add(t, l, true, string(make([]byte, 0)))
	add(t, l, true, string(other))
	must(t, l.Abort())
	path := lastFile(t, fs)
	b := contents(t, fs, path)
	b[128+56+32] ^= 1 // its checksum
	put(t, fs, path, b)
	l = open(t, o)
	if l.Last() != 2 {
		t.Fatalf("last is %d", l.Last())
	}
}

// A segment full of what looks like frames, each as long as can be: told in reasonable time.
func TestLog_ManyAlmostFramesAreQuick(t *testing.T) {
	fs := memFS(t)
	o := small(fs)
	o.SegmentBytes, o.ChunkBytes = 1<<20, 4096
	l := lead(t, o)
	p := make([]byte, 1<<20)
	for at := 0; at+32 <= len(p); at += 32 {
		n := len(p) - at - 32
		p[at], p[at+4], p[at+5], p[at+6] = 1, byte(n), byte(n>>8), byte(n>>16)
		p[at+8], p[at+16], p[at+24] = 200, 190, 1
	}
	add(t, l, true, string(p))
	must(t, l.Abort())
	path := lastFile(t, fs)
	b := contents(t, fs, path)
	b[128+56] ^= 1
	put(t, fs, path, b)
	if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrCorrupt) {
		t.Fatalf("opened: %v", err)
	}
}

func TestLog_UnbornSegment(t *testing.T) {
	header := func(n int) []byte { // the first n bytes of what would be a header, and zeros
		b := make([]byte, 512)
		copy(b, append([]byte("PPARTLOG\x01\x00\x00\x00"), make([]byte, 4)...))
		clear(b[n:])
		return b
	}
	for _, c := range []struct {
		name    string
		first   uint64 // of the file; the log before it ends at 4
		file    []byte
		hint    uint64
		corrupt bool
	}{
		{"empty", 5, nil, 0, false},
		{"short", 5, header(100)[:50], 0, false},
		{"zeros", 5, make([]byte, 600), 4, false},
		{"torn header", 5, header(12), 0, false},
		{"data behind zeros", 5, append(make([]byte, 300), 1), 0, true},
		{"data behind a torn header", 5, append(header(12), 1), 0, true},
		{"the log before it ends too early", 7, nil, 0, true},
		{"it was durable to further on", 5, nil, 5, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memFS(t)
			l := lead(t, small(fs))
			add(t, l, true, "two", "three", "four")
			must(t, l.Abort())
			path := fs.PathJoin(logDir, fmt.Sprintf("%020d.log", c.first))
			put(t, fs, path, c.file)
			// Readers take it as recovery does, which knows more: what was durable.
			for _, from := range []uint64{0, c.first, c.first + 1} {
				got, err := read(fs, logDir, from, all)
				if damaged := c.corrupt && c.hint == 0; damaged != errors.Is(err, eventlog.ErrCorrupt) || !damaged && (err != nil || from == 0 && len(got) != 4) {
					t.Errorf("read from %d: %d records, %v", from, len(got), err)
				}
			}
			o := small(fs)
			o.DurableHint = c.hint
			l, err := eventlog.Open(logDir, o)
			if c.corrupt {
				if !errors.Is(err, eventlog.ErrCorrupt) {
					t.Fatalf("opened: %v", err)
				}
				return
			}
			must(t, err)
			if l.Last() != 4 || lastFile(t, fs) == path {
				t.Fatalf("last is %d in %s", l.Last(), lastFile(t, fs))
			}
			must(t, l.Abort())
		})
	}
	t.Run("the only one", func(t *testing.T) {
		fs := memFS(t)
		must(t, fs.MkdirAll(logDir, 0o700))
		put(t, fs, fs.PathJoin(logDir, "00000000000000000101.log"), make([]byte, 300))
		o := small(fs)
		if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrCorrupt) {
			t.Fatalf("started again at 1: %v", err)
		}
		o.After = 100
		must(t, open(t, o).Close())
	})
	t.Run("none, though it was durable", func(t *testing.T) {
		o := small(memFS(t))
		o.DurableHint = 3
		if _, err := eventlog.Open(logDir, o); !errors.Is(err, eventlog.ErrCorrupt) {
			t.Fatalf("started anew: %v", err)
		}
	})
}
