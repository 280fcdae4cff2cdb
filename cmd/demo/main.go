// Command demo is a small command line over package party: it reads and writes
// one Pebble directory, which any number of processes may have open at once.
//
// Without a command it shows what that means: four processes load Go's own
// source tree into one directory while the process that leads is killed again
// and again, and every key is compared with its file at the end.
//
// The exit code is 0, 1 for an error, or 2 for wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/pebbleparty/pebbleparty/chaos"
)

type commandLine struct {
	Timeout time.Duration `default:"30s" help:"Give up when the database has not answered for this long; 0 waits for ever."`

	Put     putCommand     `cmd:"" help:"Set a key."`
	Get     getCommand     `cmd:"" help:"Print the value of a key, as it is."`
	Del     delCommand     `cmd:"" help:"Delete a key, which need not exist."`
	Cas     casCommand     `cmd:"" help:"Compare and swap: set or delete a key if its value is as expected."`
	Scan    scanCommand    `cmd:"" help:"Print keys and values, in order."`
	Load    loadCommand    `cmd:"" help:"Load folders (relative path → content) and tab-separated files (key TAB value)."`
	Status  statusCommand  `cmd:"" help:"Print who leads and how far the log is."`
	Watch   watchCommand   `cmd:"" help:"Print what commits, from any process, as it does, until interrupted."`
	Log     logCommand     `cmd:"" help:"Print the log as it lies on the disk; also while nobody leads, and from a damaged directory as far as it can be read."`
	Hold    holdCommand    `cmd:"" help:"Join and stay until interrupted, printing each change of role."`
	Backup  backupCommand  `cmd:"" help:"Write all keys, or what was written since an earlier backup, to a file, and print the sequence number that they are at."`
	Restore restoreCommand `cmd:"" help:"Make a database of a backup, or apply an incremental one to it."`
	Verify  verifyCommand  `cmd:"" help:"Read a whole database, or a backup, and check it."`
	Party   partyCommand   `cmd:"" default:"withargs" help:"The main job, and what happens without a command: load Go's source tree from several processes while leaders are killed, then compare."`
	Chaos   chaosCommand   `cmd:"" help:"Prove it: kill, stop and disturb processes at work by a plan that a seed fixes, and check every call."`
	Worker  workerCommand  `cmd:"" hidden:"" help:"One of the main job's processes."`
}

func (c *commandLine) Validate() error {
	if c.Timeout < 0 {
		return errors.New("--timeout is negative")
	}
	return nil
}

func main() {
	chaos.Main(nil) // one of the processes of the command chaos goes no further
	os.Exit(run(os.Args[1:]))
}

// run is the whole program; it returns the exit code.
func run(args []string) int {
	var line commandLine
	parser := kong.Must(&line, kong.Name("demo"),
		kong.Description("One Pebble directory, opened by many processes at once."))
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\nTry \"demo --help\".\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Whoever interrupts twice wants out now, not cleanly.
	context.AfterFunc(ctx, stop)
	// `demo scan | head` must end by an error of the write, with the handle
	// closed, and not by a signal, which would be a crash to everybody else.
	signal.Ignore(syscall.SIGPIPE)

	err = command.Run(&session{ctx: ctx, timeout: line.Timeout})
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return 0
	default:
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
}
