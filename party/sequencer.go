package party

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// maxLead is how many bytes the log may run ahead of a state that is still being
// replayed: then writers wait for it, as they always do for a Pebble that is slow.
const maxLead = 4 << 20

// errNotReplayed: the state could not be brought up to the log.
var errNotReplayed = errors.New("party: the state does not follow the log")

// Bounds of one group: what is appended with one sync.
const (
	groupBytes = 4 << 20
	groupJobs  = 1024
)

// sequencer puts the writes of all processes in order: it judges them, appends
// what takes effect to the log with one sync for all that arrived meanwhile,
// answers, and applies it. One goroutine owns all of it: the member's in begin, and then
// that of run. As a term begins the state may lack part of the log, which is replayed
// beside it (apply.Machine.Replay).
type sequencer struct {
	l        *leader // for its term
	machine  *apply.Machine
	log      *eventlog.Log
	word     *eventlog.Commit
	memory   *memoryFile
	now      func() time.Time
	appended func(bytes int) // told how much each group added to the log
	notifier *notifier

	remote chan *nats.Msg // bundles straight from the followers
	local  chan *job      // of this process, and remote ones that came in parts

	replayed chan struct{} // closed when Replay has returned; owned like the rest below, nil once the state has caught up

	// Owned by begin, then by run.
	jobs    []*job
	group   apply.Group
	answers []apply.Answer
	conns   map[apply.Origin]uint64 // newest connection of each origin, see stale
	busy    bool                    // the last group was of several jobs
	lead    int                     // bytes appended while Pebble lacked some of the log
}

func newSequencer(l *leader) *sequencer {
	return &sequencer{
		l: l, machine: l.machine, log: l.log, word: l.word, memory: l.memory, now: l.db.opts.Now, appended: l.appended, notifier: l.notifier,
		remote: l.station.commands, local: make(chan *job, 64), replayed: make(chan struct{}),
		conns: make(map[apply.Origin]uint64),
	}
}

// job is one bundle of commands and the way back for its answers.
type job struct {
	req   writeRequest
	reply func(committed uint64, answers []apply.Answer) // called once, by who has the sequencer; answers is valid until it returns
}

// conditional tells whether the state is needed to judge the job. Where a cursor stands is
// no part of it.
func (j *job) conditional() bool {
	return slices.ContainsFunc(j.req.Commands, func(c apply.Command) bool { return c.Cond != nil && !c.Cursor })
}

// errTermOver ends the sequencer on request.
var errTermOver = errors.New("party: term over")

// run works until ctx ends or something fails that the term must not survive,
// and returns that. What it has not answered then is sent again, to the next
// leader, by those who learn that this term is over.
func (s *sequencer) run(ctx context.Context) error {
	defer s.forget()
	for {
		if len(s.jobs) == 0 { // else begin has left some
			select {
			case m := <-s.remote:
				s.accept(m)
			case j := <-s.local:
				s.jobs = append(s.jobs, j)
			case <-s.replayed:
				if err := s.catchUp(ctx); err != nil {
					return err
				}
				s.note()
				continue
			case <-ctx.Done():
				return errTermOver
			}
		}
		s.drain()
		if s.busy {
			// Let those whom the last group released send again before this group
			// leaves: fuller groups, fewer syncs.
			runtime.Gosched()
			s.drain()
		}
		if s.replayed != nil && (s.lead > maxLead || slices.ContainsFunc(s.jobs, (*job).conditional)) {
			if err := s.catchUp(ctx); err != nil {
				return err
			}
		}
		if err := s.commit(ctx); err != nil {
			return err
		}
		s.note()
	}
}

// note writes down for the next leader what is due.
func (s *sequencer) note() {
	if err := s.memory.note(s.machine, s.log); err != nil {
		s.l.db.log.Warn("party: the next leader will open Pebble before it takes writes", "err", err)
	}
}

// forget ends that. If Pebble has not come up with the log in all of the term, it may be
// that it cannot: the next leader is to find out before it takes writes, and not to try the
// same again and again, in one process after the other.
func (s *sequencer) forget() {
	s.memory.close()
	if s.machine.Behind() {
		if err := s.memory.remove(); err != nil {
			s.l.db.log.Warn("party: the next leader may take writes before it opens Pebble", "err", err)
		}
	}
}

// begin makes durable what the last leader left and the record that began the term, and
// has the commit word count it. Nobody has been told of either before. What waits already
// shares the sync, unless it has to wait longer: for the state, or for room in it. It comes
// before run.
func (s *sequencer) begin(ctx context.Context) error {
	s.drain()
	if !s.machine.Behind() || slices.ContainsFunc(s.jobs, (*job).conditional) {
		return s.sync()
	}
	return s.commit(ctx)
}

// catchUp waits until the state is what the log says.
func (s *sequencer) catchUp(ctx context.Context) error {
	s.machine.Want()
	select {
	case <-s.replayed:
		if ctx.Err() != nil {
			return errTermOver // and so Replay has ended too, wherever it was
		}
		s.replayed = nil
		if err := s.machine.CatchUp(ctx); ctx.Err() != nil {
			return errTermOver
		} else if err != nil {
			return fmt.Errorf("%w: %w", errNotReplayed, err)
		}
		s.appended(s.machine.Replayed()) // Pebble has it now, and can flush it
		return nil
	case <-ctx.Done():
		return errTermOver
	}
}

// drain takes what has arrived, up to the bounds of a group.
func (s *sequencer) drain() {
	for bytes := 0; len(s.jobs) < groupJobs && bytes < groupBytes; {
		select {
		case m := <-s.remote:
			bytes += len(m.Data)
			s.accept(m)
		case j := <-s.local:
			for i := range j.req.Commands {
				bytes += j.req.Commands[i].Size()
			}
			s.jobs = append(s.jobs, j)
		default:
			return
		}
	}
}

// accept decodes a message; one that cannot be decoded is answered at once.
func (s *sequencer) accept(m *nats.Msg) {
	j, err := decodeJob(m.Data, s.log.ID(), func(b []byte) { _ = m.Respond(b) })
	if errors.Is(err, errLost) {
		return
	}
	if err != nil {
		_ = m.Respond(appendError(appendHeader(nil, msgError), err))
		return
	}
	s.jobs = append(s.jobs, j)
}

// decodeJob makes a job of an encoded writeRequest. The error is errLost if it is for another database:
// that connection ends when its hello is answered.
func decodeJob(data []byte, database eventlog.ID, respond func([]byte)) (*job, error) {
	t, body, err := openMessage(data)
	if err == nil && t != msgWrite {
		err = fmt.Errorf("%w: type %d where a write was expected", errWire, t)
	}
	if err != nil {
		return nil, err
	}
	j := &job{}
	if err := j.req.decode(body); err != nil {
		return nil, err
	}
	if j.req.Database != database {
		return nil, errLost
	}
	id := j.req.ID
	j.reply = func(committed uint64, answers []apply.Answer) {
		respond(appendAnswers(nil, id, committed, answers))
	}
	return j, nil
}

// commit judges, logs, answers and applies the jobs. After an error each of them
// was answered with what the log holds, or not at all.
func (s *sequencer) commit(ctx context.Context) error {
	first := s.log.Last() + 1
	s.machine.Begin(&s.group, first, s.now())
	s.answers = s.answers[:0]
	for _, j := range s.jobs {
		stale := s.stale(&j.req)
		for i := range j.req.Commands {
			if stale {
				s.answers = append(s.answers, apply.Answer{})
				continue
			}
			s.answers = append(s.answers, s.group.Judge(&j.req.Commands[i]))
		}
	}
	appended, refusal, err := s.append(ctx, first)
	if err != nil {
		return err
	}
	if refusal != nil {
		s.refuse(first, refusal)
		// Answers that do not rest on the group may still rest on a sync.
		if err := s.sync(); err != nil {
			return err
		}
	}
	s.busy = len(s.jobs) > 1
	s.reply()
	if !appended {
		return nil
	}
	// The log is what makes the answers true, and whoever reads after one of them
	// finds the word advanced and waits for the state. So the group is applied
	// while the answers travel: let them leave first.
	runtime.Gosched()
	if err := s.machine.Apply(&s.group); err != nil {
		return err
	}
	s.memory.since += s.group.Size()
	if s.machine.Behind() {
		s.lead += s.group.Size()
	} else {
		s.appended(s.group.Size())
	}
	return nil
}

// append makes the group durable, then known. A refusal says that nothing was
// appended and the log goes on; an error, that the term must end.
func (s *sequencer) append(ctx context.Context, first uint64) (appended bool, refusal, err error) {
	entries := s.group.Entries()
	if len(entries) == 0 {
		return false, nil, s.sync()
	}
	// What Pebble cannot flush must not pile up in its memory, and what it could not
	// take must not be in the log: reads would wait for it.
	if err := s.machine.Room(ctx); err != nil {
		derr := s.group.Discard()
		select {
		case <-ctx.Done():
			return false, nil, errors.Join(errTermOver, derr)
		case <-s.machine.Failed():
			return false, nil, errors.Join(err, derr)
		default:
			return false, err, derr // the disk is full, or fails Pebble
		}
	}
	seq, err := s.log.Append(entries, s.mustSync())
	if err != nil {
		derr := s.group.Discard()
		if errors.Is(err, eventlog.ErrFailed) || errors.Is(err, eventlog.ErrClosed) || derr != nil {
			return false, nil, errors.Join(fmt.Errorf("append to the log: %w", err), derr)
		}
		return false, err, nil
	}
	if seq != first {
		panic(fmt.Sprintf("party: log appended at %d, expected %d", seq, first))
	}
	if err := s.advance(); err != nil {
		return false, nil, err
	}
	s.notifier.committed(seq, entries)
	return true, nil, nil
}

// mustSync tells whether an answer of the group needs the log to be durable, or the term
// has still to begin.
func (s *sequencer) mustSync() bool { return s.group.Sync() || !s.l.begun.Load() }

// sync makes the log durable if it must.
func (s *sequencer) sync() error {
	if !s.mustSync() {
		return nil
	}
	if err := s.log.Sync(); err != nil {
		return fmt.Errorf("sync the log: %w", err)
	}
	return s.advance()
}

// advance moves the commit word to the end of the log: once the entries are as durable as
// their callers asked, and before anybody can see an effect. A reader anywhere that loads
// it brings its state up to it first; so no two readers disagree on the order.
func (s *sequencer) advance() error {
	begins := !s.l.begun.Load()
	if begins {
		if err := s.l.begins(); err != nil {
			return err
		}
	}
	s.word.SetDurable(s.log.Durable())
	s.word.SetCommitted(s.log.Last())
	if !begins {
		return nil
	}
	s.l.begun.Store(true)
	return s.machine.ApplyTerm(s.l.first)
}

// refuse turns every answer that rests on the group, which could not be
// appended, into a refusal. What was logged before keeps its answer.
func (s *sequencer) refuse(first uint64, err error) {
	for i := range s.answers {
		a := &s.answers[i]
		if a.Outcome == apply.OutcomeNotSwapped || a.Outcome == apply.OutcomeDone && a.Seq >= first {
			*a = apply.Answer{Outcome: apply.OutcomeRefused, Err: err}
		}
	}
}

func (s *sequencer) reply() {
	committed := s.log.Last()
	rest := s.answers
	for i, j := range s.jobs {
		n := len(j.req.Commands)
		j.reply(committed, rest[:n:n])
		rest = rest[n:]
		s.jobs[i] = nil
	}
	s.jobs = s.jobs[:0]
}

// stale tells that a newer connection of the same origin has been heard of. The
// bundle was sent again over that, and may have been answered: judging this copy
// after it could give a command effect whose caller was told it had none.
func (s *sequencer) stale(r *writeRequest) bool {
	if newest := s.conns[r.Origin]; r.Conn < newest {
		return true
	}
	if len(s.conns) >= 1<<16 {
		clear(s.conns) // a stale copy is milliseconds old, not thousands of handles
	}
	s.conns[r.Origin] = r.Conn
	return false
}
