package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/pebbleparty/pebbleparty/party"
)

type statusCommand struct {
	Dir  string `arg:"" help:"The database."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// statusJSON fixes the names that scripts read.
type statusJSON struct {
	Role       string `json:"role"`
	LeaderPID  int    `json:"leader_pid"`
	Responding bool   `json:"responding"`
	Term       uint64 `json:"term"`
	Committed  uint64 `json:"committed"`
	Applied    uint64 `json:"applied"`
	FirstSeq   uint64 `json:"first_seq"`
	Followers  int    `json:"followers"`
	Database   string `json:"database"`
}

func (c *statusCommand) Run(s *session) error {
	var st party.Status
	err := s.withExisting(c.Dir, func(h *handle) error {
		return h.ask(func(ctx context.Context) (err error) {
			st, err = h.db.Status(ctx)
			return err
		})
	})
	if err != nil {
		return err
	}
	return printed(func(w *bufio.Writer) error {
		if c.JSON {
			return json.NewEncoder(w).Encode(statusJSON{Role: st.Role.String(), LeaderPID: st.LeaderPID,
				Responding: st.Responding, Term: st.Term, Committed: st.Committed, Applied: st.Applied,
				FirstSeq: st.FirstSeq, Followers: st.Followers, Database: st.Database})
		}
		leader := fmt.Sprint(st.LeaderPID)
		switch {
		case st.Role == party.Leading:
			leader += " (this command: nobody else has it open)"
		case !st.Responding:
			leader += " (does not answer; is it stopped?)"
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range []struct {
			name  string
			value any
		}{
			{"role", st.Role}, {"leader", leader}, {"term", st.Term}, {"committed", st.Committed},
			{"applied", st.Applied}, {"first seq", st.FirstSeq}, {"followers", st.Followers}, {"database", st.Database},
		} {
			fmt.Fprintf(table, "%s\t%v\n", row.name, row.value)
		}
		return table.Flush()
	})
}
