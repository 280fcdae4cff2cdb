package party

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// caller is a follower without a lane: it sends what the test says.
type caller struct {
	t    *testing.T
	db   *DB
	conn uint64
}

func newCaller(t *testing.T, like *DB) *caller {
	return &caller{t: t, db: &DB{dir: like.dir, opts: like.opts, log: like.log, origin: apply.Origin{0xca, 0x11}}}
}

// connect connects to whoever leads in a term above that one.
func (c *caller) connect(ctx context.Context, above uint64) *remote {
	c.t.Helper()
	for {
		if e, err := readEndpoint(c.db.dir); err == nil && e.Term > above {
			c.conn++
			if r, err := connect(ctx, c.db, e, c.conn, eventlog.ID{}); err == nil {
				c.t.Cleanup(r.close)
				return r
			}
		}
		if ctx.Err() != nil {
			c.t.Fatal("nobody leads")
		}
		pause(ctx, time.Millisecond)
	}
}

// write has a bundle of commands answered over r.
func (c *caller) write(ctx context.Context, r *remote, commands ...apply.Command) (answers []apply.Answer) {
	c.t.Helper()
	var bundle []*call
	for i := range commands {
		commands[i].Origin, commands[i].Sync = c.db.origin, true
		bundle = append(bundle, &call{cmd: &commands[i]})
	}
	r.send(0, bundle)
	if err := r.wait(ctx, 0, bundle); err != nil {
		c.t.Fatal(err)
	}
	for _, b := range bundle {
		answers = append(answers, b.answer)
	}
	return answers
}

// TestSequencer_RecognisesWhatWasLogged: a command whose answer was lost comes
// again to the next leader, which gives the answer that was lost, whatever
// happened to the state in between.
func TestSequencer_RecognisesWhatWasLogged(t *testing.T) {
	for _, end := range []struct {
		name string
		term func(ctx context.Context, db *DB) error
	}{
		{"resigned", func(ctx context.Context, db *DB) error { return db.Resign(ctx) }},
		{"stepped down", func(_ context.Context, db *DB) error {
			db.leading.Load().cancel(errors.New("the test wants it"))
			return nil
		}},
	} {
		for _, between := range []struct {
			name string
			do   func(ctx context.Context, db *DB) error
		}{
			{"nothing between", func(context.Context, *DB) error { return nil }},
			{"all keys deleted between", func(ctx context.Context, db *DB) error {
				return db.DeleteRange(ctx, []byte{0}, []byte("\xff\xff\xff\xff"), nil)
			}},
		} {
			t.Run(end.name+", "+between.name, func(t *testing.T) {
				ctx, cancel := context30(t)
				defer cancel()
				db, err := Open(ctx, t.TempDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				c := newCaller(t, db)
				r := c.connect(ctx, 0)
				swap := &apply.Condition{Key: []byte("swap"), Absent: true}
				commands := []apply.Command{
					{Number: 1, Repr: apply.ReprMerge([]byte("merge"), []byte("x"))},
					{Number: 2, Cond: swap, Repr: apply.ReprSet(swap.Key, []byte("1"))},
				}
				first := c.write(ctx, r, commands...)
				if err := between.do(ctx, db); err != nil {
					t.Fatal(err)
				}
				values, err := db.GetMany(ctx, [][]byte{[]byte("merge"), []byte("swap")})
				if err != nil {
					t.Fatal(err)
				}
				if err := end.term(ctx, db); err != nil {
					t.Fatal(err)
				}
				r = c.connect(ctx, r.term)
				for i := range commands {
					commands[i].Retry = true
				}
				second := c.write(ctx, r, commands...)
				for i := range first {
					if first[i] != second[i] || first[i].Outcome != apply.OutcomeDone {
						t.Errorf("command %d: %+v, and when it came again %+v", i+1, first[i], second[i])
					}
				}
				after, err := db.GetMany(ctx, [][]byte{[]byte("merge"), []byte("swap")})
				if err != nil {
					t.Fatal(err)
				}
				for i := range values {
					if string(after[i]) != string(values[i]) || (after[i] == nil) != (values[i] == nil) {
						t.Errorf("command %d took effect again: %q, then %q", i+1, values[i], after[i])
					}
				}
			})
		}
	}
}

// TestSequencer_IgnoresAnOlderConnection: what an origin sent over a connection
// that it has given up has no effect once it has sent over the next.
func TestSequencer_IgnoresAnOlderConnection(t *testing.T) {
	ctx, db := openHere(t, t.TempDir())
	c := newCaller(t, db)
	older := c.connect(ctx, 0)
	newer := c.connect(ctx, 0)
	set := func(key string) []byte { return apply.ReprSet([]byte(key), nil) }
	if a := c.write(ctx, older, apply.Command{Number: 1, Repr: set("before")}); a[0].Outcome != apply.OutcomeDone {
		t.Errorf("%+v", a)
	}
	if a := c.write(ctx, newer, apply.Command{Number: 2, Repr: set("newer")}); a[0].Outcome != apply.OutcomeDone {
		t.Errorf("%+v", a)
	}
	if a := c.write(ctx, older, apply.Command{Number: 3, Repr: set("older")}); a[0] != (apply.Answer{}) {
		t.Errorf("a command over a connection that was given up is answered %+v", a[0])
	}
	if _, err := db.Get(ctx, []byte("older")); !errors.Is(err, pebble.ErrNotFound) {
		t.Errorf("a command over a connection that was given up took effect: %v", err)
	}
}

// TestSequencer_IgnoresAnotherDatabase: a bundle that was sent before it was known who answers has no
// effect where another database is.
func TestSequencer_IgnoresAnotherDatabase(t *testing.T) {
	ctx, db := openHere(t, t.TempDir())
	c := newCaller(t, db)
	r := c.connect(ctx, 0)
	own := r.database
	r.database = eventlog.ID{1}
	r.send(0, []*call{{cmd: &apply.Command{Origin: c.db.origin, Number: 1, Repr: apply.ReprSet([]byte("other"), nil)}}})
	r.database = own
	if a := c.write(ctx, r, apply.Command{Number: 2, Repr: apply.ReprSet([]byte("own"), nil)}); a[0].Outcome != apply.OutcomeDone {
		t.Errorf("%+v", a)
	}
	if _, err := db.Get(ctx, []byte("other")); !errors.Is(err, pebble.ErrNotFound) {
		t.Errorf("what was meant for another database took effect: %v", err)
	}
}

// replaceSocket has whoever looks for the leader db find another socket, until restore is called.
// In between there is always one, as the leader wants.
func replaceSocket(t *testing.T, db *DB, other string) (restore func()) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return func() {}
	}
	own, aside := db.path("nats.sock"), db.path("aside.sock")
	put := func(from, to string) {
		if err := errors.Join(os.Link(from, to+".new"), os.Rename(to+".new", to)); err != nil {
			t.Fatal(err)
		}
	}
	put(own, aside)
	put(other, own)
	return func() {
		if err := os.Rename(aside, own); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConnect_AnotherDatabase: what was sent to a leader of another database is sent again over the next
// connection.
func TestConnect_AnotherDatabase(t *testing.T) {
	ctx, right := openHere(t, t.TempDir())
	_, wrong := openHere(t, t.TempDir())
	for i, size := range []int{1, 2 * chunk} { // in one message, and in parts
		c := newCaller(t, right)
		c.db.writes, c.db.reads = newLane(1, false), newLane(readSlots, false)
		c.db.origin[2] = byte(i)
		key := []byte{byte(i)}
		write := &call{cmd: &apply.Command{Origin: c.db.origin, Sync: true, Repr: apply.ReprSet(key, make([]byte, size))}}
		answered := make(chan error, 1)
		go func() { answered <- c.db.writes.do(ctx, write) }()
		e, err := readEndpoint(right.dir)
		if err != nil {
			t.Fatal(err)
		}
		known := right.leading.Load().log.ID()
		there := e
		there.Address = wrong.leading.Load().address // differs where that is a pipe
		restore := replaceSocket(t, right, wrong.path("nats.sock"))
		if r, err := connect(ctx, c.db, there, 1, known); !errors.Is(err, errNoEndpoint) {
			t.Fatal(r, err)
		}
		restore()
		select {
		case err := <-answered:
			t.Fatalf("a leader of another database answers %+v, %v", write.answer, err)
		default:
		}
		if _, err := wrong.Get(ctx, key); !errors.Is(err, pebble.ErrNotFound) {
			t.Fatalf("a leader of another database has the write: %v", err)
		}
		r, err := connect(ctx, c.db, e, 2, known)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil || write.answer.Outcome != apply.OutcomeDone {
			t.Fatalf("%+v, %v", write.answer, err)
		}
		if v, err := right.Get(ctx, key); err != nil || len(v) != size {
			t.Errorf("%d bytes, %v", len(v), err)
		}
		r.close()
	}
}

// TestMember_SendsBeforeItIsAnsweredOnce: writes leave with the introduction if the handle fits the database and
// they may be sent again, and not a second time to one that has not answered.
func TestMember_SendsBeforeItIsAnsweredOnce(t *testing.T) {
	ctx, leader := openHere(t, t.TempDir())
	known := leader.leading.Load().log.ID()
	for _, c := range []struct {
		name    string
		fits    eventlog.ID
		noRetry bool
		want    []bool // whether they did, in the dials
	}{
		{"first meeting", eventlog.ID{}, false, []bool{false}},
		{"again", known, false, []bool{true, false}},
		{"not to be sent again", known, true, []bool{false}},
	} {
		db := newCaller(t, leader).db
		db.writes, db.opts.NoRetry = newLane(1, c.noRetry), c.noRetry
		m := &member{db: db, database: c.fits}
		for i, want := range c.want {
			r, err := m.dial(ctx)
			if err != nil {
				t.Fatal(err)
			}
			db.writes.mu.Lock()
			if got := db.writes.route != nil; got != want {
				t.Errorf("%s, dial %d: sent %t", c.name, i, got)
			}
			db.writes.route = nil
			db.writes.mu.Unlock()
			r.close()
			m.stale = nil
		}
	}
}
