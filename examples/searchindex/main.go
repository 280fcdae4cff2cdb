// Searchindex keeps a full-text index of the values of a database that other
// processes write, in a Pebble of its own:
//
//	searchindex follow DIR INDEX         # until it is interrupted or killed
//	searchindex find INDEX WORD          # while nobody follows
//
// It may be killed at any moment. The index holds, in the same batch as what an
// event changed in it, the number of that event; so the next start goes on with
// the one behind it, and no event is missed or counted twice.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "follow":
		return follow(ctx, args[1], args[2])
	case len(args) == 3 && args[0] == "find":
		return find(args[1], args[2])
	}
	return errors.New("usage: searchindex follow DIR INDEX | find INDEX WORD")
}

// follow keeps the index in dir up to date with the database in source.
func follow(ctx context.Context, source, dir string) (err error) {
	db, err := party.Open(ctx, source, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ix, err := openIndex(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	return keep(ctx, db, ix)
}

// keep goes on where the index stands, or builds it first.
func keep(ctx context.Context, db *party.DB, ix *index) error {
	for {
		seq, built, err := ix.position()
		if err != nil {
			return err
		}
		if !built {
			if err := rebuild(ctx, db, ix); err != nil {
				return err
			}
			continue
		}
		// The log does not reach back for ever, and a power cut takes what was not
		// synced. An index that is behind the one or ahead of the other is built
		// again.
		err = resume(ctx, db, ix, seq)
		if !errors.Is(err, party.ErrCompacted) && !errors.Is(err, party.ErrTruncated) {
			return err
		}
		if err := ix.clear(); err != nil {
			return err
		}
	}
}

// resume applies every event behind seq.
func resume(ctx context.Context, db *party.DB, ix *index, seq uint64) error {
	sub, err := db.Subscribe(ctx, &party.SubscribeOptions{From: seq + 1})
	if err != nil {
		return err
	}
	defer sub.Close()
	fmt.Fprintln(os.Stderr, "following from", seq+1)
	for ev, err := range sub.Events(ctx) {
		if err != nil {
			return err
		}
		if err := ix.apply(ev.Seq, ev.Ops, false); err != nil {
			return err
		}
	}
	return nil
}

// rebuild takes all that is there, and ends with a position to resume from.
func rebuild(ctx context.Context, db *party.DB, ix *index) error {
	if err := ix.clear(); err != nil { // of a start that did not come to the end
		return err
	}
	w, err := db.Watch(ctx, nil)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		c, err := w.Next(ctx)
		switch {
		case err != nil:
			return err
		case c.Kind == party.ChangeReady:
			return ix.apply(c.Seq, nil, true) // only now is it an index of anything
		}
		if err := ix.add(c.Key, c.Value); err != nil {
			return err
		}
	}
}

func find(dir, word string) error {
	ix, err := openIndex(dir)
	if err != nil {
		return err
	}
	keys, err := ix.find(word)
	for _, k := range keys {
		fmt.Println(k)
	}
	return errors.Join(err, ix.Close())
}

var keyPosition = []byte("position")

// position returns the number of the last event in the index; built is false if
// it is not complete up to any.
func (ix *index) position() (seq uint64, built bool, err error) {
	v, closer, err := ix.db.Get(keyPosition)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(v), true, closer.Close()
}
