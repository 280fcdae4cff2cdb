package main

import (
	"fmt"
	"os"

	"github.com/pebbleparty/pebbleparty/party"
)

type holdCommand struct {
	Dir string `arg:"" help:"The database; created if there is none."`
}

func (c *holdCommand) Run(s *session) error {
	h, err := s.join(c.Dir, &party.Options{Events: party.Events{RoleChanged: printRole}})
	if err != nil {
		return err
	}
	<-s.ctx.Done()
	return h.close()
}

// printRole writes unbuffered: a holder may be killed at any time, and its last
// line is what one wants to see then.
func printRole(c party.RoleChange) {
	line := fmt.Sprintf("%s  pid %d  %s", c.Time.Format("15:04:05.000"), os.Getpid(), c.Role)
	if c.Term != 0 {
		line += fmt.Sprintf("  term %d", c.Term)
	}
	if c.Role == party.Following {
		line += fmt.Sprintf("  leader %d", c.LeaderPID)
	}
	if c.Cause != nil {
		line += fmt.Sprintf("  (%v)", c.Cause)
	}
	fmt.Println(line)
}
