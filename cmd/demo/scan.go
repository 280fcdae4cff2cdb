package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"

	"github.com/pebbleparty/pebbleparty/party"
)

type scanCommand struct {
	Dir     string `arg:"" help:"The database."`
	Prefix  string `help:"Only keys that begin with this." placeholder:"P"`
	Reverse bool   `help:"From the last key to the first."`
	Limit   int    `help:"At most this many keys; 0 is all." placeholder:"N"`
	Keys    bool   `help:"Keys only."`
}

func (c *scanCommand) Help() string {
	return `A line is the key, a tab and the value. Backslash, tab and line ends in them are printed as \\, \t, \n and \r, ` +
		`other control characters and bytes that are not UTF-8 as \x00, so that "demo load --escaped" reads back what this prints.`
}

func (c *scanCommand) Validate() error {
	if c.Limit < 0 {
		return errors.New("--limit is negative")
	}
	return nil
}

func (c *scanCommand) Run(s *session) error {
	return s.withExisting(c.Dir, func(h *handle) error {
		return printed(func(w *bufio.Writer) error { return c.scan(h, w) })
	})
}

func (c *scanCommand) scan(h *handle, w *bufio.Writer) error {
	opts := &party.IterOptions{KeysOnly: c.Keys}
	if c.Prefix != "" {
		opts.LowerBound = []byte(c.Prefix)
		opts.UpperBound = successor(opts.LowerBound)
	}
	return iterate(h, opts, c.Reverse, func(key, value []byte) (more bool, err error) {
		line := appendEscaped(nil, key)
		if !c.Keys {
			line = appendEscaped(append(line, '\t'), value)
		}
		_, err = w.Write(append(line, '\n'))
		c.Limit--
		return c.Limit != 0, err
	})
}

// iterate calls visit for every key until it wants no more. Key and value are
// good until visit returns.
func iterate(h *handle, opts *party.IterOptions, reverse bool, visit func(key, value []byte) (more bool, err error)) error {
	var it *party.Iterator
	err := h.ask(func(ctx context.Context) (err error) {
		it, err = h.db.NewIter(ctx, opts)
		return err
	})
	if err != nil {
		return err
	}
	start, move := it.First, it.Next
	if reverse {
		start, move = it.Last, it.Prev
	}
	ok, more := h.step(start), true
	for ; ok; ok = h.step(move) {
		if more, err = visit(it.Key(), it.Value()); err != nil || !more {
			break
		}
	}
	if !ok {
		err = h.ask(func(context.Context) error { return it.Error() })
	}
	return errors.Join(err, it.Close())
}

// successor is the first key behind all that begin with prefix, or nil if there
// is none.
func successor(prefix []byte) []byte {
	end := bytes.TrimRight(prefix, "\xff")
	if len(end) == 0 {
		return nil
	}
	end = bytes.Clone(end)
	end[len(end)-1]++
	return end
}
