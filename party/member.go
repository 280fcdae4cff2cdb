package party

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// member owns the role of a handle: one goroutine, run, that leads or follows
// until that role ends, and looks for the next in between. Nobody else takes the
// lock, dials, or sets the routes.
type member struct {
	db   *DB
	lock string // path of the leader lock
	// The database of the last role: comparer and merger fit that.
	database eventlog.ID
	conns    uint64 // connections made so far
	// Until then, or until another leader is seen, the lock is left to the others:
	// after Resign, and after this process failed to lead.
	yield     time.Time
	yieldTerm uint64
	busySince time.Time // since when the leader lock is free but Pebble's is held
	cause     error     // why the last role ended
	complete  bool      // the handle led as it was closed, and completed the state
	ready     *station  // for when this process leads; nil if it has not followed for long

	sentTo endpoint // writes were sent to it without knowing whether it answers; once is enough

	// The endpoint file that was dialled last, and when nobody answered there any more.
	stale     os.FileInfo
	staleTime time.Time
}

const (
	// yieldFor is how long a process that resigned, or failed to lead, leaves the
	// lock to the others, who look for it every millisecond.
	yieldFor = 300 * time.Millisecond
	// busyFor is how long Pebble's lock may be held by nobody that answers before
	// it is taken for a program that does not use party.
	busyFor = 2 * time.Second
)

func (m *member) run(ctx context.Context) {
	defer m.tidy()
	for failures := 0; ctx.Err() == nil; {
		err := m.elect(ctx)
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		// Whoever waits gets the reason; then it is tried again, as the reason may
		// go away, more and more slowly.
		m.db.log.Error("party: can neither lead nor follow", "dir", m.db.dir, "err", err)
		m.db.fail(err)
		failures++
		pause(ctx, min(100*time.Millisecond<<min(failures, 4), time.Second))
	}
}

// elect looks for a role, fills it, and returns nil when that has ended. It
// returns an error when this process can have none for a reason that it cannot
// wait out.
//
// No timer decides who leads: the lock does. The pauses only keep those who lost
// from asking all the time. The first are very short, because the kernel frees the
// lock of a dead process some microseconds after its connections; then they leave the
// winner some milliseconds, and grow when it needs long (a large log, a stopped process).
func (m *member) elect(ctx context.Context) error {
	var failed error // why this process cannot lead
	for try := 0; ctx.Err() == nil; try++ {
		// In the first milliseconds whoever has the lock needs the processor.
		if !m.yielding() && (try < 5 || try >= 50 || try%4 == 0) {
			if failed != nil {
				return failed
			}
			lock, ok, err := tryLock(m.lock)
			if err != nil {
				return err
			}
			if ok {
				l, err := acquire(m.db, lock, m.takeReady())
				if err == nil {
					m.lead(ctx, l)
					if err = m.cause; !errors.Is(err, errNotReplayed) {
						return nil
					}
				}
				if !errors.Is(err, errBusy) {
					// What keeps this process from leading may not keep another one: a
					// limit of its own, a disk that failed it. Its calls can go there.
					failed = wrapError(err)
					m.leaveToOthers(0)
				} else if err := m.busy(err); err != nil {
					// Not that the lock file was removed under a leader that is alive:
					// that would answer.
					return err
				}
			}
		}
		r, err := m.dial(ctx)
		if errors.Is(err, ErrIncompatible) && (!errors.Is(err, errOtherEndpoint) || try > 500) {
			return err
		}
		if err == nil {
			m.follow(ctx, r)
			return nil
		}
		switch {
		case try < 3:
			briefly(100 * time.Microsecond)
		case try < 50:
			pause(ctx, time.Millisecond)
		case try < 200:
			pause(ctx, 5*time.Millisecond)
		default:
			pause(ctx, 20*time.Millisecond)
		}
	}
	return nil
}

// busy notes that Pebble's lock is held while ours was free, and says when that
// has lasted too long.
func (m *member) busy(err error) error {
	if m.busySince.IsZero() {
		m.busySince = time.Now()
	}
	if time.Since(m.busySince) < busyFor {
		return nil
	}
	m.busySince = time.Time{}
	return fmt.Errorf("%w: %s: close that program, or let it use party: %w", ErrInUse, m.db.dir, err)
}

// leaveToOthers keeps this process from the lock for a while, or until it sees a
// leader of a term above that one.
func (m *member) leaveToOthers(term uint64) {
	m.yield, m.yieldTerm = time.Now().Add(yieldFor), term
}

func (m *member) yielding() bool {
	if m.yield.IsZero() {
		return false
	}
	if time.Now().After(m.yield) {
		m.yield = time.Time{}
		return false
	}
	return true
}

// dial connects to the leader that the endpoint file names.
func (m *member) dial(ctx context.Context) (*remote, error) {
	path := m.db.path("endpoint")
	file, err := os.Stat(path)
	if err == nil && m.stale != nil && os.SameFile(file, m.stale) && file.ModTime().Equal(m.stale.ModTime()) &&
		time.Since(m.staleTime) < redialAfter {
		return nil, errNoEndpoint // a dead leader's; its successor needs the processor
	}
	e, err := readEndpoint(m.db.dir)
	if err != nil {
		return nil, err
	}
	if m.yielding() && e.Term <= m.yieldTerm {
		return nil, errNoEndpoint // our own
	}
	m.conns++
	m.stale, m.staleTime = file, time.Time{}
	// A stopped leader accepts and does not answer. While it is asked, the lock
	// is not tried; so ask for a moment only.
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	known := m.database
	if e == m.sentTo {
		known = eventlog.ID{}
	}
	m.sentTo = e
	r, err := connect(ctx, m.db, e, m.conns, known)
	if err != nil {
		m.staleTime = time.Now()
	}
	return r, err
}

const (
	dialFor     = 2 * time.Second
	redialAfter = 20 * time.Millisecond // where nobody answered
)

// follow sends calls to the leader until the connection ends.
func (m *member) follow(ctx context.Context, r *remote) {
	m.database = r.database
	m.busySince, m.yield = time.Time{}, time.Time{}
	m.db.setRole(state{role: Following, remote: r, term: r.term, pid: r.pid, cause: m.cause})
	m.cause = nil
	prepare := time.NewTimer(prepareAfter)
	defer prepare.Stop()
	for over := false; !over; {
		select {
		case <-prepare.C:
			if m.ready == nil {
				var err error
				if m.ready, err = newStation(m.db.log); err != nil {
					m.db.log.Warn("party: start a NATS server in advance", "err", err)
				}
			}
		case <-r.ctx.Done():
			m.cause = errors.New("the leader went away")
			m.staleTime = time.Now()
			over = true
		case <-ctx.Done():
			over = true
		case done := <-m.db.resign:
			close(done) // it does not lead: nothing to do
		}
	}
	m.db.setRole(state{role: Electing, cause: m.cause})
	r.close()
}

// prepareAfter is how long a process follows before it makes ready to lead: one
// that only makes a call or two never does.
const prepareAfter = 100 * time.Millisecond

// takeReady returns what follow has made ready, nil if there is nothing.
func (m *member) takeReady() *station {
	s := m.ready
	m.ready = nil
	if s == nil {
		return nil
	}
	select {
	case <-s.disconnected:
		_ = s.close()
		return nil
	default:
		return s
	}
}

// lead serves until something fails or leadership is given up.
func (m *member) lead(ctx context.Context, l *leader) {
	m.database = l.log.ID()
	m.busySince, m.yield = time.Time{}, time.Time{}
	m.db.learn(l.word.Committed())
	m.db.setRole(state{role: Leading, leader: l, term: l.term, pid: os.Getpid(), cause: m.cause})
	m.cause = nil
	clean := false
	yield := false
	var resigned chan struct{}
	select {
	case <-l.ctx.Done():
		m.cause = context.Cause(l.ctx)
		m.db.log.Error("party: stepping down", "term", l.term, "err", m.cause)
		yield = l.station.server.Followers() > 0
	case <-ctx.Done():
		clean = true
	case resigned = <-m.db.resign:
		clean = true
		yield = l.station.server.Followers() > 0
	}
	if mutant.DeposedLeader && resigned != nil {
		l.outstay()
	}
	if clean {
		// Most of what is unflushed goes to disk while everybody is still served.
		l.preflush()
	}
	m.db.setRole(state{role: Electing, cause: m.cause})
	err := l.release(clean)
	if err != nil {
		m.db.log.Error("party: end of term", "term", l.term, "err", err)
	}
	if ctx.Err() != nil {
		m.db.closeErr, m.complete = err, clean
	}
	if yield {
		m.leaveToOthers(l.term)
	}
	if resigned != nil {
		close(resigned)
	}
}

// tidy runs when the handle closes while it does not lead. If nobody leads, the
// last leader was killed, and this may be the last handle: it completes the
// state for plain Pebble, as that leader would have done.
func (m *member) tidy() {
	defer func() {
		if s := m.takeReady(); s != nil {
			_ = s.close()
		}
	}()
	m.db.setRole(state{role: Electing})
	if m.db.untidy() && !m.complete {
		lock, ok, err := tryLock(m.lock)
		if err == nil && !ok || errors.Is(err, os.ErrNotExist) {
			return // somebody leads, or the directory was removed
		}
		if err == nil {
			var l *leader
			if l, err = acquire(m.db, lock, m.takeReady()); err == nil {
				err = l.release(true)
			}
		}
		if err != nil {
			m.db.closeErr = fmt.Errorf("party: close %s: complete the state of a leader that was killed: %w", m.db.dir, err)
		}
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
