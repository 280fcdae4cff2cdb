package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/party"
)

// strict takes keys of callers, which begin with a letter, and those that our
// bookkeeping is documented to have, and no others.
func strict() *party.Options {
	c := *pebble.DefaultComparer
	c.Name = "strict"
	c.ValidateKey = func(k []byte) error {
		if rest, ok := bytes.CutPrefix(k, []byte(apply.ReservedPrefix)); ok && (len(rest) == 0 || rest[0] != 'n') {
			return nil
		}
		if len(k) > 0 && k[0] < 'a' {
			return fmt.Errorf("no key: %q", k)
		}
		if bytes.HasPrefix(k, []byte(apply.ReservedPrefix)) {
			return fmt.Errorf("no key of the bookkeeping: %q", k)
		}
		return nil
	}
	return &party.Options{Pebble: &pebble.Options{Comparer: &c, Logger: silent{}}}
}

// cursorsOf returns what Status says of named subscriptions.
func cursorsOf(t testing.TB, db *party.DB) map[string]uint64 {
	t.Helper()
	st, err := db.Status(within(t))
	must(t, err)
	m := make(map[string]uint64)
	for _, c := range st.Cursors {
		m[c.Name] = c.Acked
	}
	return m
}

// Named subscriptions are part of what a backup has, full and incremental.
func TestRestore_NamedSubscriptions(t *testing.T) {
	for name, o := range map[string]func() *party.Options{"default": quietly, "a comparer that looks at keys": strict} {
		t.Run(name, func(t *testing.T) {
			dir := newDirFor(t, o().Pebble)
			db := open(t, dir, o())
			acked(t, db, "early")
			acked(t, db, "moved")
			acked(t, db, "dropped")
			full, seq := backup(t, db)
			inFull := cursorsOf(t, db)
			var none pebble.Batch
			must(t, none.DeleteRange([]byte("a"), []byte("\xff\xff\xff"), nil)) // leaves ours where they are
			_, err := db.Apply(within(t), &none, nil)
			must(t, err)
			acked(t, db, "later")
			s, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: "moved"})
			must(t, err)
			var last uint64
			for range 2 {
				last = next(t, s).Seq
			}
			must(t, s.Ack(within(t), last))
			must(t, s.Close())
			must(t, db.DropCursor(within(t), "dropped"))
			inc, upTo := backupSince(t, db, seq)
			inIncrement := cursorsOf(t, db)
			closeDB(t, db)

			to := filepath.Join(t.TempDir(), "db")
			restore(t, full, to, o(), seq)
			other := filepath.Join(t.TempDir(), "db")
			restore(t, full, other, o(), seq)
			restored := open(t, other, o())
			if got := cursorsOf(t, restored); !maps.Equal(got, inFull) {
				t.Errorf("restored from the full backup: %v, want %v", got, inFull)
			}
			closeDB(t, restored)
			restore(t, inc, to, o(), upTo)
			sameKeys(t, "restored", plainKeys(t, to, o().Pebble), plainKeys(t, dir, o().Pebble))
			if _, err := party.VerifyWith(within(t), to, o()); err != nil {
				t.Errorf("verify: %v", err)
			}
			restored = open(t, to, o())
			if got := cursorsOf(t, restored); !maps.Equal(got, inIncrement) || len(got) != 3 {
				t.Errorf("restored: %v, want %v", got, inIncrement)
			}
			// The events behind it were committed before the backup, and are in no log.
			var gone *party.CompactedError
			if _, err := restored.Subscribe(within(t), &party.SubscribeOptions{Name: "moved"}); !errors.As(err, &gone) || gone.First != upTo+1 {
				t.Errorf("behind the backup: %v", err)
			}
			closeDB(t, restored)
		})
	}
}
