package party_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

// files returns a picture of all files below dir.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		m[path] = string(b)
		return err
	}))
	return m
}

// closedDB returns a database that was written by a process; killed, or closed.
func closedDB(t *testing.T, killed bool) string {
	t.Helper()
	dir := t.TempDir()
	p := start(t, config{Dir: dir})
	p.do(request{Op: "sets", Key: []byte("a"), Value: pattern(500), N: 400, NoSync: true})
	p.do(request{Op: "resign"}) // flushed
	p.do(request{Op: "sets", Key: []byte("b"), Value: pattern(500), N: 20})
	if killed {
		p.kill()
	} else {
		p.end()
	}
	return dir
}

func TestVerify_FindsNothingWrong(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			dir := closedDB(t, killed)
			before := files(t, dir)
			v, err := party.Verify(within(t), dir)
			must(t, err)
			sameKeys(t, "the files after it", files(t, dir), before)
			if v.Live || v.Tables == 0 || v.Entries != 420 || v.LastSeq < 420 || killed != (v.Applied < v.LastSeq) || v.Compared != v.Keys {
				t.Errorf("%+v", v)
			}
			db := open(t, dir, quietly())
			set(t, db, "c", "1")
			if v, err = party.Verify(within(t), dir); err != nil || !v.Live || v.Keys != 421 || v.Entries != 421 || v.Compared != 421 {
				t.Errorf("live: %+v, %v", v, err)
			}
			if left := replicaFolders(t, dir); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
	if _, err := party.Verify(within(t), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	empty := t.TempDir()
	if _, err := party.Verify(within(t), empty); !errors.Is(err, os.ErrNotExist) || len(files(t, empty)) > 0 {
		t.Errorf("an empty folder: %v", err)
	}
	if v, err := party.Verify(within(t), plain(t, nil)); err != nil || v.Keys == 0 || v.LastSeq != 0 {
		t.Errorf("a database of plain Pebble: %+v, %v", v, err)
	}
}

func TestVerify_FindsDamage(t *testing.T) {
	glob := func(t *testing.T, pattern string) string {
		names, err := filepath.Glob(pattern)
		must(t, err)
		if len(names) == 0 {
			t.Fatalf("no file %s", pattern)
		}
		return names[0]
	}
	flip := func(t *testing.T, name string, at func(size int) int) {
		b, err := os.ReadFile(name)
		must(t, err)
		b[at(len(b))] ^= 0x10
		must(t, os.WriteFile(name, b, 0o600))
	}
	change := func(t *testing.T, dir string, do func(db *pebble.DB) error) {
		db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
		must(t, err)
		must(t, errors.Join(do(db), db.Flush(), db.Close()))
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a block of a table": func(t *testing.T, dir string) { flip(t, glob(t, dir+"/*.sst"), func(int) int { return 700 }) },
		"the end of a table": func(t *testing.T, dir string) { flip(t, glob(t, dir+"/*.sst"), func(n int) int { return n - 3 }) },
		"a missing table":    func(t *testing.T, dir string) { must(t, os.Remove(glob(t, dir+"/*.sst"))) },
		"a record of the log": func(t *testing.T, dir string) {
			flip(t, glob(t, dir+"/party/log/*.log"), func(int) int { return 5000 })
		},
		"the log cut": func(t *testing.T, dir string) {
			must(t, os.Truncate(glob(t, dir+"/party/log/*.log"), 20_000))
		},
		"the end of the log, which was synced": func(t *testing.T, dir string) {
			name := glob(t, dir+"/party/log/*.log")
			b, err := os.ReadFile(name)
			must(t, err)
			at := bytes.LastIndex(b, []byte("b000015")) - 100
			clear(b[at:])
			must(t, os.WriteFile(name, b, 0o600))
		},
		"the log missing": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/party/log")) },
		"a key changed behind the log": func(t *testing.T, dir string) {
			change(t, dir, func(db *pebble.DB) error { return db.Set([]byte("a000007"), []byte("x"), nil) })
		},
		"a key deleted behind the log": func(t *testing.T, dir string) {
			change(t, dir, func(db *pebble.DB) error { return db.Delete([]byte("a000007"), nil) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := closedDB(t, true)
			damage(t, dir)
			v, err := party.Verify(within(t), dir)
			if !errors.Is(err, party.ErrCorrupt) && !(name == "a missing table" && err != nil) {
				t.Errorf("%+v, %v", v, err)
			}
			t.Log(err)
		})
	}
}

// The last record, too, is named with its place when a bit of it was turned over: it
// was durable, as the commit word says, though nothing behind it in the log does.
func TestVerify_NamesTheLastRecord(t *testing.T) {
	dir := closedDB(t, true)
	names, err := filepath.Glob(dir + "/party/log/*.log")
	must(t, err)
	name := names[len(names)-1]
	log, err := os.ReadFile(name)
	must(t, err)
	log[bytes.LastIndex(log, []byte("b000019"))+50] ^= 4
	must(t, os.WriteFile(name, log, 0o600))
	_, err = party.Verify(within(t), dir)
	if !errors.Is(err, party.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(name)+" at offset ") {
		t.Errorf("%v", err)
	}
}

// acked has a named subscription acknowledge one event and returns its number.
func acked(t testing.TB, db *party.DB, name string) uint64 {
	t.Helper()
	s, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: name})
	must(t, err)
	seq := applyBatch(t, db, "Set "+name+"=1")
	must(t, s.Ack(within(t), next(t, s).Seq))
	must(t, s.Close())
	return seq
}

// What moves a cursor is an entry of the log and no write of any key.
func TestVerify_NamedSubscriptionsAreNoDamage(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, quietly())
	acked(t, db, "a")
	acked(t, db, "b")
	must(t, db.DropCursor(within(t), "b"))
	if v, err := party.Verify(within(t), dir); err != nil || !v.Live || v.Keys != 2 || v.Compared != 2 || v.Entries != 7 {
		t.Errorf("live: %+v, %v", v, err)
	}
	closeDB(t, db)
	if v, err := party.Verify(within(t), dir); err != nil || v.Live || v.Keys != 2 || v.Compared != 2 || v.Entries != 7 {
		t.Errorf("closed: %+v, %v", v, err)
	}
}

// After each of these the next leader opens the database and nothing is lost, so
// nothing is wrong with it.
func TestVerify_LeftByACrash(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, dir string, id eventlog.ID, last uint64){
		"as a log was begun": func(t *testing.T, dir string, id eventlog.ID, last uint64) {
			log := filepath.Join(dir, "party", "log")
			must(t, os.RemoveAll(log)) // as one may after a clean end
			l, err := eventlog.Open(log, eventlog.Options{ID: id, After: last})
			must(t, err)
			must(t, l.Abort())
		},
		"as a segment was begun": func(t *testing.T, dir string, _ eventlog.ID, last uint64) {
			must(t, os.WriteFile(filepath.Join(dir, "party", "log", fmt.Sprintf("%020d.log", last+1)), nil, 0o600))
		},
		"as the header of a segment was written": func(t *testing.T, dir string, _ eventlog.ID, last uint64) {
			b := append([]byte("PPARTLOG\x01"), make([]byte, 1000)...)
			must(t, os.WriteFile(filepath.Join(dir, "party", "log", fmt.Sprintf("%020d.log", last+1)), b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			db := open(t, dir, quietly())
			set(t, db, "a", "1")
			st, err := db.Status(within(t))
			must(t, err)
			closeDB(t, db)
			id, err := hex.DecodeString(st.Database)
			must(t, err)
			crash(t, dir, eventlog.ID(id), st.Committed)
			if v, err := party.Verify(within(t), dir); err != nil || v.Keys != 1 {
				t.Errorf("%+v, %v", v, err)
			}
			l, err := party.OpenLog(dir, 0)
			must(t, err)
			for err == nil {
				_, err = l.Next()
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("the log ends with %v", err)
			}
			must(t, l.Close())
			db = open(t, dir, quietly())
			expect(t, db, "a", "1")
		})
	}
}

// One whose log is removed as it is read is whole.
func TestVerify_IsOvertakenByRetention(t *testing.T) {
	dir := newDir(t)
	o := quietly()
	o.Retention.MaxBytes = 6 << 20
	db := open(t, dir, o)
	leads(t, db)
	first := applyBatch(t, db, "Set a=b")
	var stop atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; !stop.Load(); i++ {
			if err := db.Set(within(t), []byte{'k', byte(i % 16)}, pattern(200<<10), pebble.NoSync); err != nil {
				t.Error(err)
				return
			}
		}
	})
	until(t, "retention removes something", func() bool {
		st, err := db.Status(within(t))
		must(t, err)
		return st.FirstSeq > first
	})
	for range 10 {
		if v, err := party.Verify(within(t), dir); err != nil || v.Keys == 0 {
			t.Errorf("%+v, %v", v, err)
		}
	}
	stop.Store(true)
	writer.Wait()
}
