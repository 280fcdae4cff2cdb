package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/pebbleparty/pebbleparty/party"
)

type watchCommand struct {
	Dir    string `arg:"" help:"The database."`
	From   uint64 `help:"The first sequence number wanted; 0 is what commits from now on." placeholder:"N"`
	Prefix string `help:"Only keys that begin with this." placeholder:"P"`
	Name   string `help:"Go on where the last watch of this name stopped. One process at a time has a name; others wait until it ends." placeholder:"NAME"`
	JSON   bool   `name:"json" help:"Print one JSON object for each batch."`
}

func (c *watchCommand) Help() string {
	return `A line is an operation: the sequence number of its batch, what it is, the key and, after another tab, its value or where its ` +
		`range ends, all escaped as "demo scan" does.`
}

func (c *watchCommand) Run(s *session) error {
	err := s.withExisting(c.Dir, func(h *handle) error { return c.watch(s.ctx, h) })
	if s.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted)) {
		return nil // that is how it ends, while it joins or acknowledges, too
	}
	return err
}

func (c *watchCommand) watch(ctx context.Context, h *handle) error {
	o := &party.SubscribeOptions{From: c.From, Name: c.Name}
	if c.Prefix != "" {
		o.LowerBound = []byte(c.Prefix)
		o.UpperBound = successor(o.LowerBound)
	}
	var sub *party.Subscription
	subscribe := func(ctx context.Context) (err error) {
		sub, err = h.db.Subscribe(ctx, o)
		return err
	}
	var err error
	if c.Name != "" {
		err = subscribe(ctx) // until it is its turn: no timeout
	} else {
		err = h.ask(subscribe)
	}
	if err != nil {
		return err
	}
	// To whom it is piped sees each batch at once.
	w := bufio.NewWriter(os.Stdout)
	for ev, err := range sub.Events(ctx) { // it may have nothing to print for days: no timeout
		if err == nil {
			err = c.print(w, ev)
		}
		if err == nil {
			err = w.Flush()
		}
		if err == nil && c.Name != "" {
			err = h.ask(func(ctx context.Context) error { return sub.Ack(ctx, ev.Seq) })
		}
		if err != nil {
			return errors.Join(err, sub.Close())
		}
	}
	return sub.Close()
}

func (c *watchCommand) print(w *bufio.Writer, ev party.Event) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(eventJSON{Seq: ev.Seq, Time: ev.Time, Ops: opsJSON(ev.Ops)})
	}
	return printOps(w, fmt.Sprint(ev.Seq), ev.Ops)
}

// printOps prints a line for each operation.
func printOps(w *bufio.Writer, head string, ops []party.Op) error {
	for _, op := range ops {
		line := fmt.Appendf(nil, "%s\t%s\t", head, op.Kind)
		line = appendEscaped(line, op.Key)
		switch op.Kind {
		case party.OpSet, party.OpMerge:
			line = appendEscaped(append(line, '\t'), op.Value)
		case party.OpDeleteRange:
			line = appendEscaped(append(line, '\t'), op.End)
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// eventJSON fixes the names that scripts read.
type eventJSON struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Ops  []opJSON  `json:"ops"`
}

// opJSON has what is not UTF-8 in the fields that end in 64, in base 64.
type opJSON struct {
	Op      string  `json:"op"`
	Key     *string `json:"key,omitempty"`
	Key64   []byte  `json:"key64,omitempty"`
	Value   *string `json:"value,omitempty"`
	Value64 []byte  `json:"value64,omitempty"`
	End     *string `json:"end,omitempty"`
	End64   []byte  `json:"end64,omitempty"`
}

func opsJSON(ops []party.Op) []opJSON {
	out := make([]opJSON, len(ops))
	for i, op := range ops {
		o := opJSON{Op: op.Kind.String()}
		o.Key, o.Key64 = textOr64(op.Key)
		switch op.Kind {
		case party.OpSet, party.OpMerge:
			o.Value, o.Value64 = textOr64(op.Value)
		case party.OpDeleteRange:
			o.End, o.End64 = textOr64(op.End)
		}
		out[i] = o
	}
	return out
}

func textOr64(b []byte) (text *string, base64 []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	s := string(b)
	return &s, nil
}
