package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

type logCommand struct {
	Dir  string `arg:"" help:"The database."`
	From uint64 `help:"The first sequence number to print; 0 is where the log begins." placeholder:"N"`
	To   uint64 `help:"The last sequence number to print; 0 is the end." placeholder:"N"`
	JSON bool   `name:"json" help:"Print one JSON object for each entry."`
}

func (c *logCommand) Help() string {
	return `An entry is a line with its sequence number, term, time and the handle that wrote it, and a line for each of its ` +
		`operations as "demo watch" prints them. Nothing is locked or changed. If the log is damaged, what comes before the damage is ` +
		`printed, the error says where it is, and the exit code is 1.`
}

func (c *logCommand) Validate() error {
	if c.To != 0 && c.To < c.From {
		return errors.New("--to is below --from")
	}
	return nil
}

func (c *logCommand) Run(s *session) error {
	l, err := party.OpenLog(c.Dir, c.From)
	if err != nil {
		return err
	}
	to := c.To
	if to == 0 {
		to = math.MaxUint64
	}
	err = printed(func(w *bufio.Writer) error {
		for s.ctx.Err() == nil {
			e, err := l.Next()
			if errors.Is(err, io.EOF) || err == nil && e.Seq > to {
				return nil
			}
			if err == nil {
				err = c.print(w, &e)
			}
			if err != nil || e.Seq == to {
				return err
			}
		}
		return errInterrupted
	})
	return errors.Join(err, l.Close())
}

// entryJSON fixes the names that scripts read.
type entryJSON struct {
	Seq    uint64    `json:"seq"`
	Term   uint64    `json:"term"`
	Time   time.Time `json:"time"`
	Origin string    `json:"origin,omitempty"` // none: the record that begins the term
	Ops    []opJSON  `json:"ops,omitempty"`
}

func (c *logCommand) print(w *bufio.Writer, e *party.LogEntry) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(entryJSON{Seq: e.Seq, Term: e.Term, Time: e.Time, Origin: e.Origin, Ops: opsJSON(e.Ops)})
	}
	by := e.Origin
	if by == "" {
		by = "begins the term"
	}
	if _, err := fmt.Fprintf(w, "%d\tterm %d\t%s\t%s\n", e.Seq, e.Term, e.Time.UTC().Format(time.RFC3339Nano), by); err != nil {
		return err
	}
	return printOps(w, "", e.Ops)
}
