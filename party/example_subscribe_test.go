package party_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Everything that commits from now on, whoever writes it.
func ExampleDB_Subscribe() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	s, err := db.Subscribe(ctx, nil)
	check(err)
	defer s.Close()

	var b pebble.Batch
	check(b.Set([]byte("fruit/apple"), []byte("red"), nil))
	check(b.DeleteRange([]byte("leaf/"), []byte("leaf0"), nil))
	_, err = db.Apply(ctx, &b, pebble.Sync)
	check(err)

	ev, err := s.Next(ctx)
	check(err)
	for _, op := range ev.Ops {
		fmt.Printf("%s %s %s%s\n", op.Kind, op.Key, op.Value, op.End)
	}
	// Output:
	// Set fruit/apple red
	// DeleteRange leaf/ leaf0
}

// A process that keeps the number of the last event it has handled goes on there
// when it comes back.
func ExampleSubscription_Events() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	for _, v := range []string{"one", "two", "three"} {
		check(db.Set(ctx, []byte("k"), []byte(v), nil))
	}

	handled := uint64(0)
	follow := func(upTo string) {
		s, err := db.Subscribe(ctx, &party.SubscribeOptions{From: handled + 1})
		check(err)
		defer s.Close()
		for ev, err := range s.Events(ctx) {
			check(err)
			fmt.Printf("%s\n", ev.Ops[0].Value)
			if handled = ev.Seq; string(ev.Ops[0].Value) == upTo {
				return
			}
		}
	}
	follow("two")
	fmt.Println("and later")
	follow("three")
	// Output:
	// one
	// two
	// and later
	// three
}

// Only what touches a range of keys, a DeleteRange cut down to it.
func ExampleSubscribeOptions() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	s, err := db.Subscribe(ctx, &party.SubscribeOptions{LowerBound: []byte("b"), UpperBound: []byte("d")})
	check(err)
	defer s.Close()
	check(db.Set(ctx, []byte("a"), []byte("outside"), nil))
	check(db.DeleteRange(ctx, []byte("a"), []byte("z"), nil))
	ev, err := s.Next(ctx)
	check(err)
	fmt.Printf("%s..%s\n", ev.Ops[0].Key, ev.Ops[0].End)
	// Output: b..d
}

// A number that is beyond the end of the log is no reason to wait for ever.
func ExampleTruncatedError() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	seq, err := db.Apply(ctx, func() *pebble.Batch {
		b := new(pebble.Batch)
		check(b.Set([]byte("k"), []byte("v"), nil))
		return b
	}(), nil)
	check(err)
	_, err = db.Subscribe(ctx, &party.SubscribeOptions{From: seq + 100})
	var lost *party.TruncatedError
	fmt.Println(errors.As(err, &lost), lost.Last == seq)
	// Output: true true
}

// Who comes back so late that the log has not what comes next any more.
func ExampleCompactedError() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	for range 4 {
		check(db.Set(ctx, []byte("k"), make([]byte, 1<<20), pebble.NoSync))
	}
	st, err := db.Status(ctx)
	check(err)
	first, err := db.Trim(ctx, st.Committed)
	check(err)

	_, err = db.Subscribe(ctx, &party.SubscribeOptions{From: 1})
	var compacted *party.CompactedError
	if errors.As(err, &compacted) {
		fmt.Println(compacted.First == first) // Watch gives all keys, and goes on from there
	}
	// Output: true
}

func ExampleSubscription_Close() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	s, err := db.Subscribe(ctx, nil)
	check(err)
	go s.Close() // ends a Next that waits
	_, err = s.Next(ctx)
	fmt.Println(errors.Is(err, party.ErrClosed))
	// Output: true
}

// The log is removed in whole segments, so a small one stays as it is.
func ExampleDB_Trim() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	check(db.Set(ctx, []byte("k"), []byte("v"), nil))
	first, err := db.Trim(ctx, 2)
	check(err)
	fmt.Println("the log begins at", first)
	// Output: the log begins at 1
}

// The log as it lies on the disk, also while nobody has the database open.
func ExampleOpenLog() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "party-example")
	check(err)
	defer os.RemoveAll(dir)
	db, err := party.Open(ctx, dir, nil)
	check(err)
	check(db.Set(ctx, []byte("k"), []byte("v"), nil))
	check(db.Close())

	l, err := party.OpenLog(dir, 0)
	check(err)
	defer l.Close()
	for {
		e, err := l.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		fmt.Println(e.Seq, "of term", e.Term)
		for _, op := range e.Ops {
			fmt.Printf("%s %s %s\n", op.Kind, op.Key, op.Value)
		}
	}
	// Output:
	// 1 of term 1
	// 2 of term 1
	// Set k v
}

// A worker that goes on behind its last Ack, whichever process it was in.
func ExampleSubscription_Ack() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	work := func() {
		s, err := db.Subscribe(ctx, &party.SubscribeOptions{Name: "mailer", From: 1})
		check(err)
		defer s.Close()
		ev, err := s.Next(ctx)
		check(err)
		fmt.Printf("%s\n", ev.Ops[0].Key)
		check(s.Ack(ctx, ev.Seq))
	}
	check(db.Set(ctx, []byte("first"), nil, nil))
	check(db.Set(ctx, []byte("second"), nil, nil))
	work()
	work()
	// Output:
	// first
	// second
}

func ExampleDB_DropCursor() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	s, err := db.Subscribe(ctx, &party.SubscribeOptions{Name: "mailer"})
	check(err)
	check(s.Close())
	st, err := db.Status(ctx)
	check(err)
	fmt.Println(len(st.Cursors), st.Cursors[0].Name)
	check(db.DropCursor(ctx, "mailer"))
	st, err = db.Status(ctx)
	check(err)
	fmt.Println(len(st.Cursors))
	// Output:
	// 1 mailer
	// 0
}

// A cache that another process could keep: first what is there, then what changes.
func ExampleDB_Watch() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	check(db.Set(ctx, []byte("fruit/apple"), []byte("red"), nil))

	w, err := db.Watch(ctx, &party.WatchOptions{LowerBound: []byte("fruit/"), UpperBound: []byte("fruit0")})
	check(err)
	defer w.Close()
	cache := make(map[string]string)
	for c, err := range w.All(ctx) {
		check(err)
		switch c.Kind {
		case party.ChangeKey:
			cache[string(c.Key)] = string(c.Value)
		case party.ChangeReady:
			fmt.Println("ready:", cache)
			check(db.Set(ctx, []byte("fruit/lemon"), []byte("yellow"), nil))
		case party.ChangeEvent:
			for _, op := range c.Event.Ops {
				cache[string(op.Key)] = string(op.Value) // here only Sets
			}
			fmt.Println("now:", cache)
			return
		}
	}
	// Output:
	// ready: map[fruit/apple:red]
	// now: map[fruit/apple:red fruit/lemon:yellow]
}

// One change at a time: the keys that are there, in order, and then what happens.
func ExampleWatcher_Next() {
	ctx := context.Background()
	db, done := exampleDB()
	defer done()
	check(db.Set(ctx, []byte("apple"), []byte("red"), nil))
	check(db.Set(ctx, []byte("lemon"), []byte("yellow"), nil))

	w, err := db.Watch(ctx, nil)
	check(err)
	defer w.Close()
	check(db.Delete(ctx, []byte("apple"), nil)) // behind the moment that w began with
	for range 4 {
		c, err := w.Next(ctx)
		check(err)
		fmt.Println(c.Kind)
		if c.Kind == party.ChangeKey {
			fmt.Printf("\t%s=%s\n", c.Key, c.Value)
		}
		for _, op := range c.Event.Ops {
			fmt.Printf("\t%s %s\n", op.Kind, op.Key)
		}
	}
	// Output:
	// key
	// 	apple=red
	// key
	// 	lemon=yellow
	// ready
	// event
	// 	Delete apple
}
