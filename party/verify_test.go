package party_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

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
