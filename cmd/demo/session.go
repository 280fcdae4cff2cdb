package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// session is what every command gets.
type session struct {
	ctx     context.Context // ends with SIGINT or SIGTERM
	timeout time.Duration   // 0: none
}

var errInterrupted = errors.New("interrupted")

// handle is an open database whose calls end when it stops answering.
type handle struct {
	*patience
	db *party.DB
}

// join opens dir. The caller closes the handle.
func (s *session) join(dir string, opts *party.Options) (*handle, error) {
	h := &handle{patience: newPatience(s.ctx, s.timeout, dir)}
	err := h.ask(func(ctx context.Context) (err error) {
		h.db, err = party.Open(ctx, dir, opts)
		return err
	})
	if err != nil {
		h.patience.end()
		return nil, err
	}
	return h, nil
}

func (h *handle) close() error {
	defer h.patience.end()
	return h.db.Close()
}

// with runs f on a handle of dir, which is created if need be, and closes it.
func (s *session) with(dir string, f func(h *handle) error) error {
	h, err := s.join(dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(f(h), h.close())
}

// withExisting is with for commands that have no reason to create a database: a
// mistyped directory is an error and leaves nothing behind.
func (s *session) withExisting(dir string, f func(h *handle) error) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no such directory", dir)
	}
	return s.with(dir, f)
}

// printed runs f with a buffered standard output.
func printed(f func(w *bufio.Writer) error) error {
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	err := f(w)
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	return err
}

// patience bounds how long the database may leave a call without an answer. It
// bounds each call and each step of an iteration, never the whole: loading may
// take an hour as long as it moves.
type patience struct {
	ctx    context.Context // of every call
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer // nil without a limit
	advice string
}

var errNoAnswer = errors.New("no answer")

func newPatience(parent context.Context, limit time.Duration, dir string) *patience {
	// party never takes the lock from a leader that lives, so a stopped one keeps
	// everybody waiting.
	p := &patience{limit: limit, advice: fmt.Sprintf("%s names the process that leads, \"ps -o pid,stat,args -p PID\" shows T "+
		"if it is stopped, \"kill -CONT PID\" lets it go on; --timeout waits longer", filepath.Join(dir, "party", "endpoint"))}
	p.ctx, p.cancel = context.WithCancelCause(parent)
	if limit > 0 {
		p.timer = time.AfterFunc(limit, func() { p.cancel(errNoAnswer) })
		p.timer.Stop()
	}
	return p
}

// ask runs one call.
func (p *patience) ask(call func(ctx context.Context) error) error {
	if p.timer != nil {
		p.timer.Reset(p.limit)
		defer p.timer.Stop()
	}
	err := call(p.ctx)
	if err == nil || p.ctx.Err() == nil {
		return err
	}
	if errors.Is(context.Cause(p.ctx), errNoAnswer) {
		return fmt.Errorf("%w within %s (%w). %s", errNoAnswer, p.limit, err, p.advice)
	}
	return errInterrupted
}

// write is ask for a write, whose outcome is unknown when it gets no answer: a
// stopped leader may have it before it and carry it out when it goes on.
func (p *patience) write(call func(ctx context.Context) error) error {
	err := p.ask(call)
	if p.ctx.Err() != nil && err != nil {
		return fmt.Errorf("%w. The write may still take effect", err)
	}
	return err
}

// step is ask for a step of an iteration, which has its error elsewhere.
func (p *patience) step(move func() bool) (ok bool) {
	_ = p.ask(func(context.Context) error { ok = move(); return nil })
	return ok
}

func (p *patience) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.cancel(nil)
}
