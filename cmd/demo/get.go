package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/term"
)

type getCommand struct {
	Dir string `arg:"" help:"The database."`
	Key string `arg:"" help:"The key."`
}

func (c *getCommand) Run(s *session) error {
	var value []byte
	err := s.withExisting(c.Dir, func(h *handle) error {
		return h.ask(func(ctx context.Context) (err error) {
			value, err = h.db.Get(ctx, []byte(c.Key))
			return err
		})
	})
	if errors.Is(err, pebble.ErrNotFound) {
		return fmt.Errorf("%s: not found", printable(c.Key))
	}
	if err != nil {
		return err
	}
	return printed(func(w *bufio.Writer) error {
		if _, err := w.Write(value); err != nil {
			return err
		}
		if term.IsTerminal(int(os.Stdout.Fd())) {
			return w.WriteByte('\n')
		}
		return nil
	})
}
