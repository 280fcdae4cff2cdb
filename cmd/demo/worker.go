package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// workerCommand is one process of the main job. It reads tasks from its standard
// input and writes reports to its standard output, both as lines of JSON, and
// ends when its input does, which is also what happens when its parent dies.
type workerCommand struct {
	Dir  string `arg:""`
	Root string `arg:"" help:"The folder that the tasks' files are in."`
}

// report is what a worker says. Times are the worker's clock: all processes run
// on one machine.
type report struct {
	At    time.Time `json:"at"`
	Acked *int      `json:"acked,omitempty"` // id of the task whose write was acknowledged At
	Error string    `json:"error,omitempty"` // why the worker ends

	// A change of role, when Role is set.
	Role   string `json:"role,omitempty"`
	Term   uint64 `json:"term,omitempty"`
	Leader int    `json:"leader,omitempty"` // its pid
	Cause  string `json:"cause,omitempty"`
}

// Each worker has workerLanes writes under way, and a few tasks that wait, so
// that it does not idle while an acknowledgement travels to the parent and back.
const (
	workerLanes = 4
	workerTasks = 2 * workerLanes
)

func (c *workerCommand) Run(s *session) error {
	signal.Ignore(os.Interrupt) // a terminal sends it to parent and workers alike; the parent decides
	w := worker{folder: folder{path: c.Root}, out: json.NewEncoder(os.Stdout)}
	h, err := s.join(c.Dir, &party.Options{Events: party.Events{RoleChanged: w.roleChanged}})
	if err == nil {
		w.handle = h
		err = errors.Join(w.work(s.ctx), h.close())
	}
	if err != nil {
		w.say(report{Error: err.Error()})
	}
	return err
}

type worker struct {
	handle *handle
	folder folder

	mu  sync.Mutex
	out *json.Encoder // under mu: lines must not mix
}

// say writes one line. That the parent is gone is learnt from standard input.
func (w *worker) say(r report) {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.out.Encode(r)
}

func (w *worker) roleChanged(c party.RoleChange) {
	r := report{At: c.Time, Role: c.Role.String(), Term: c.Term, Leader: c.LeaderPID}
	if c.Cause != nil {
		r.Cause = c.Cause.Error()
	}
	w.say(r)
}

// work writes what it is given until its input ends or a write fails.
func (w *worker) work(ctx context.Context) error {
	tasks := make(chan task)
	var lanes sync.WaitGroup
	ctx, fail := context.WithCancelCause(ctx)
	for range workerLanes {
		lanes.Go(func() {
			for t := range tasks {
				if err := w.write(t); err != nil {
					fail(err)
				}
			}
		})
	}
	input := make(chan error, 1)
	go func() { input <- readTasks(ctx, tasks) }()
	var err error
	select {
	case err = <-input:
		lanes.Wait()
		if ctx.Err() != nil { // a lane failed as the input ended
			err = context.Cause(ctx)
		}
	case <-ctx.Done():
		// The reader sits in a read of standard input until the process ends;
		// the handle is closed all the same.
		err = context.Cause(ctx)
	}
	fail(nil)
	return err
}

// readTasks passes on tasks until there are no more or ctx ends.
func readTasks(ctx context.Context, tasks chan<- task) error {
	defer close(tasks)
	in := json.NewDecoder(os.Stdin)
	for {
		var t task
		switch err := in.Decode(&t); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read tasks: %w", err)
		}
		select {
		case tasks <- t:
		case <-ctx.Done():
			return nil
		}
	}
}

// write sets a task's keys in one batch and reports the acknowledgement.
func (w *worker) write(t task) error {
	var batch pebble.Batch
	for _, key := range t.Keys {
		value, err := os.ReadFile(w.folder.at(key))
		if err != nil {
			return err
		}
		if err := batch.Set([]byte(key), value, nil); err != nil {
			return err
		}
	}
	// The handle's patience is for one caller at a time; here the parent watches
	// for a job that no longer moves.
	if _, err := w.handle.db.Apply(w.handle.ctx, &batch, pebble.Sync); err != nil {
		return err
	}
	w.say(report{At: time.Now(), Acked: &t.ID})
	return nil
}
