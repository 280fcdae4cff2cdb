package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// logLines reads a log to its end and writes each entry in a line.
func logLines(t testing.TB, l *party.LogReader) (lines []string, err error) {
	t.Helper()
	for {
		e, err := l.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if age := time.Since(e.Time); age < 0 || age > time.Hour {
			t.Errorf("entry %d is %v old", e.Seq, age)
		}
		if (e.Origin == "") != (e.Ops == nil) || e.Origin != "" && len(e.Origin) != 32 {
			t.Errorf("entry %d is by %q", e.Seq, e.Origin)
		}
		lines = append(lines, fmt.Sprintf("%d of term %d: %s", e.Seq, e.Term, text(party.Event{Ops: e.Ops})))
	}
}

func wantLog(t testing.TB, dir string, from uint64, want ...string) {
	t.Helper()
	l, err := party.OpenLog(dir, from)
	must(t, err)
	defer func() { must(t, l.Close()) }()
	got, err := logLines(t, l)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("from %d: %q, %v; want %q", from, got, err, want)
	}
}

func TestLogReader(t *testing.T) {
	dir := newDir(t)
	if _, err := party.OpenLog(dir, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	p := start(t, config{Dir: dir})
	p.do(request{Op: "set", Key: []byte("a"), Value: []byte("1"), NoSync: true})
	wantLog(t, dir, 0, "1 of term 1: ", "2 of term 1: Set a=1")

	// more comes while it is open
	l, err := party.OpenLog(dir, 3)
	must(t, err)
	defer func() { must(t, l.Close()) }()
	if lines, err := logLines(t, l); len(lines) != 0 || err != nil {
		t.Fatal(lines, err)
	}
	p.do(request{Op: "merge", Key: []byte("a"), Value: []byte("2")})
	if lines, err := logLines(t, l); fmt.Sprint(lines) != "[3 of term 1: Merge a=2]" || err != nil {
		t.Fatal(lines, err)
	}

	p.kill() // nobody leads
	wantLog(t, dir, 2, "2 of term 1: Set a=1", "3 of term 1: Merge a=2")
	wantLog(t, dir, 1000)
	db := open(t, dir, nil)
	set(t, db, "b", "x")
	must(t, db.Close())
	first, err := party.OpenLog(dir, 4)
	must(t, err)
	lines, err := logLines(t, first)
	must(t, err)
	must(t, first.Close())
	if len(lines) != 2 {
		t.Fatal(lines)
	}
}

// What is damaged is read up to the damage, which is named; nothing is changed.
func TestLogReader_Damage(t *testing.T) {
	dir := t.TempDir() // left as the kill left it
	p := start(t, config{Dir: dir})
	var names []string
	var early []byte // whole records, and nothing behind them
	for i := range 10 {
		p.do(request{Op: "set", Key: fmt.Append(nil, "key", i)})
		if i == 4 {
			var err error
			names, err = filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
			must(t, err)
			early, err = os.ReadFile(names[0])
			must(t, err)
		}
	}
	p.kill()
	// That number may be another's by now, or that of one who is in another container.
	endpoint := filepath.Join(dir, "party", "endpoint")
	b, err := os.ReadFile(endpoint)
	must(t, err)
	own, here := fmt.Appendf(nil, `"pid":%d,`, p.pid), fmt.Appendf(nil, `"pid":%d,`, os.Getpid())
	if !bytes.Contains(b, own) {
		t.Fatalf("there is no %s in %s", own, b)
	}
	b = bytes.Replace(b, own, here, 1)
	must(t, os.WriteFile(endpoint, b, 0o600))
	whole, err := os.ReadFile(names[0])
	must(t, err)
	at := func(key string) int { return bytes.Index(whole, []byte(key)) }
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		read   int // entries, with the record of the term
		noWord bool
	}{
		"in the middle":               {func(b []byte) []byte { b[at("key5")]++; return b }, 6, false},
		"in the last":                 {func(b []byte) []byte { b[at("key9")]++; return b }, 10, false},
		"the end is missing":          {func(b []byte) []byte { return b[:at("key8")-60] }, 9, false},
		"the end is zero":             {func(b []byte) []byte { clear(b[at("key7")-70:]); return b }, 8, false},
		"whole records are missing":   {func([]byte) []byte { return early }, 6, false},
		"the header":                  {func(b []byte) []byte { b[20]++; return b }, -1, false},
		"in the middle, without word": {func(b []byte) []byte { b[at("key5")]++; return b }, 6, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.damage(bytes.Clone(whole))
			must(t, os.WriteFile(names[0], b, 0o600))
			word := filepath.Join(dir, "party", "commit")
			if c.noWord {
				must(t, os.Rename(word, word+".away"))
				defer func() { must(t, os.Rename(word+".away", word)) }()
			}
			l, err := party.OpenLog(dir, 0)
			if c.read < 0 {
				want(t, err, party.ErrCorrupt)
				return
			}
			must(t, err)
			lines, err := logLines(t, l)
			want(t, err, party.ErrCorrupt)
			if len(lines) != c.read {
				t.Errorf("read %d entries, want %d", len(lines), c.read)
			}
			must(t, l.Close())
			if after, err := os.ReadFile(names[0]); err != nil || !bytes.Equal(after, b) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}
