package party

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A follower whose connection ends while its leader lives, which cuts off who does not read for
// long, comes back to it.
func TestMember_ComesBackToTheSameLeader(t *testing.T) {
	ctx, leader := openHere(t, t.TempDir())
	follower, err := Open(ctx, leader.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	for range 3 {
		before, err := follower.route(ctx)
		if err != nil || before.remote == nil {
			t.Fatalf("%+v, %v", before, err)
		}
		before.remote.nc.Close()
		if err := follower.Set(ctx, []byte("k"), []byte("v"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		after, err := follower.route(ctx)
		if err != nil || after.remote == before.remote || after.term != before.term || after.pid != before.pid {
			t.Fatalf("%+v, then %+v, %v", before, after, err)
		}
	}
}

// The socket of a leader whose connection is lost is left alone for a while. Another's is not.
func TestMember_LeavesADeadLeadersSocketAlone(t *testing.T) {
	ctx, leader := openHere(t, t.TempDir())
	db := newCaller(t, leader).db
	db.writes, db.reads, db.events = newLane(1, false), newLane(readSlots, false), newEventQueue(Events{})
	db.mu.changed = make(chan struct{})
	m := &member{db: db}
	r, err := m.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	m.follow(ctx, r)
	if m.staleTime.IsZero() {
		t.Fatal("a lost connection says nothing of the socket")
	}
	m.staleTime = time.Now().Add(time.Hour)
	if _, err := m.dial(ctx); !errors.Is(err, errNoEndpoint) || m.conns != 1 {
		t.Fatalf("%v, dialled %d times", err, m.conns)
	}
	if err := leader.leading.Load().published.publish(db.path("endpoint")); err != nil {
		t.Fatal(err)
	}
	if r, err = m.dial(ctx); err != nil {
		t.Fatal(err)
	}
	r.close()
}
