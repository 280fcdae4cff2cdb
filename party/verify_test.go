package party_test

import (
	"testing"

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
