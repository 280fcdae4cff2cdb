package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

type putCommand struct {
	Dir   string `arg:"" help:"The database; created if there is none."`
	Key   string `arg:"" help:"The key."`
	Value string `arg:"" help:"The value; - reads it from standard input. After --, it may begin with a dash."`
}

func (c *putCommand) Run(s *session) error {
	value := []byte(c.Value)
	if c.Value == "-" {
		var err error
		if value, err = readInput(s.ctx); err != nil {
			return fmt.Errorf("read the value: %w", err)
		}
	}
	return s.with(c.Dir, func(h *handle) error {
		return h.write(func(ctx context.Context) error {
			return h.db.Set(ctx, []byte(c.Key), value, pebble.Sync)
		})
	})
}

// readInput returns what standard input holds, or an error when ctx ends first.
func readInput(ctx context.Context) ([]byte, error) {
	type result struct {
		value []byte
		err   error
	}
	read := make(chan result, 1) // nobody may be left to take it
	go func() {
		// One byte more than fits is enough to be refused.
		value, err := io.ReadAll(io.LimitReader(os.Stdin, party.MaxBatch+1))
		read <- result{value, err}
	}()
	select {
	case r := <-read:
		return r.value, r.err
	case <-ctx.Done():
		return nil, errInterrupted
	}
}

type delCommand struct {
	Dir string `arg:"" help:"The database."`
	Key string `arg:"" help:"The key."`
}

func (c *delCommand) Run(s *session) error {
	return s.withExisting(c.Dir, func(h *handle) error {
		return h.write(func(ctx context.Context) error {
			return h.db.Delete(ctx, []byte(c.Key), pebble.Sync)
		})
	})
}

type casCommand struct {
	Dir    string  `arg:"" help:"The database; created if there is none."`
	Key    string  `arg:"" help:"The key."`
	Old    *string `help:"The value that the key must have." xor:"expect" required:"" placeholder:"V"`
	Absent bool    `help:"The key must not exist." xor:"expect" required:""`
	New    *string `help:"The value to set." xor:"effect" required:"" placeholder:"V"`
	Delete bool    `help:"Delete the key." xor:"effect" required:""`
}

var errNotSwapped = errors.New("not swapped: the value is another")

func (c *casCommand) Run(s *session) error {
	return s.with(c.Dir, func(h *handle) error {
		return h.write(func(ctx context.Context) error {
			swapped, err := h.db.CompareAndSwap(ctx, []byte(c.Key), given(c.Old), given(c.New), pebble.Sync)
			if err == nil && !swapped {
				err = errNotSwapped
			}
			return err
		})
	})
}

// given is nil for a flag that was not given, which is another thing than an
// empty value.
func given(flag *string) []byte {
	if flag == nil {
		return nil
	}
	return []byte(*flag)
}
