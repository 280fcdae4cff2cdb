package apply

import (
	"context"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// View is the state at one sequence number. It may be read from any goroutine
// until Close.
type View struct {
	m    *Machine
	snap *pebble.Snapshot
	id   eventlog.ID
	seq  uint64
	time time.Time
}

// View returns the state as it is now. It is called by the goroutine that
// applies; the caller closes the View before the machine.
func (m *Machine) View() *View {
	return &View{m: m, snap: m.store.db.NewSnapshot(), id: m.id, seq: m.Applied(), time: time.Unix(0, m.nanos)}
}

// ID returns the database that it is of, zero if the state knows of none yet.
func (v *View) ID() eventlog.ID { return v.id }

// Seq returns the sequence number: all up to it is in the state, and nothing
// that comes behind it.
func (v *View) Seq() uint64 { return v.seq }

// Time returns the time of the newest entry in it, by the clock of its leader.
func (v *View) Time() time.Time { return v.time }

// Get appends the value of key to dst. Reserved keys are absent. The error is
// pebble.ErrNotFound for an absent key.
func (v *View) Get(dst, key []byte) ([]byte, error) { return v.m.get(v.snap, dst, key, nil) }

// NewIter returns an iterator, which sees reserved keys too. The caller closes it
// before the View.
func (v *View) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	return v.snap.NewIterWithContext(context.Background(), o)
}

// Close gives the state back to Pebble, and does not wait until it has taken it, which
// on a full disk may be when the machine is closed. It is called once.
func (v *View) Close() {
	s := v.m.store
	s.calls.Go(func() {
		defer s.forgive()
		_ = v.snap.Close() // never an error
	})
}
