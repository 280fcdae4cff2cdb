package apply

import (
	"slices"
	"sync"
	"time"
)

// settling puts off what makes the opening of Pebble slow: writes to folders, and
// the syncs between them, that bring a new options file into force and, if Pebble
// is new or had something to replay, a new manifest; and to make sure of the manifest
// that it has read, see guardFS.rewrite. Nothing that anybody is told rests on them.
// Until they are through, a crash finds what was there before and all the files that it
// names, which the log continues as well as it does the new one. So while Pebble opens
// they are only noted, and done in the same order when something has to come behind
// them, or when those who waited for the failover have been served.
// Syncs of tables are not among them, see guardFile.sync.
type settling struct {
	mu      sync.Mutex
	noting  bool // until Pebble is open
	begun   bool // pending is being done
	pending []pendingOp

	once   sync.Once
	wanted chan struct{} // closed: something waits for done
	done   chan struct{} // closed when nothing is pending any more
	err    error         // of the first operation that failed; immutable once done is closed
}

// settleAfter is how long what was put off may wait.
const settleAfter = 250 * time.Millisecond

type pendingOp struct {
	run  func() error
	free bool // closes a file: done even if what comes before it failed
}

func newSettling() *settling {
	return &settling{noting: true, wanted: make(chan struct{}), done: make(chan struct{})}
}

// note takes op for later, while Pebble opens; false says that it does not.
func (s *settling) note(op pendingOp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noting {
		s.pending = append(s.pending, op)
	}
	return s.noting
}

// first is note, before all that was noted.
func (s *settling) first(op func() error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noting {
		s.pending = slices.Insert(s.pending, 0, pendingOp{run: op})
	}
	return s.noting
}

// settled tells whether all that was put off is done, and well.
func (s *settling) settled() bool {
	select {
	case <-s.done:
		return s.err == nil
	default:
		return false
	}
}

// remove removes a file in its turn, which nothing waits for: what is left
// behind, the next opening removes.
func (s *settling) remove(op func() error) error {
	s.mu.Lock()
	if !s.begun {
		s.pending = append(s.pending, pendingOp{run: func() error { _ = op(); return nil }})
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return s.do(op)
}

// do runs op in its turn: later while Pebble opens, else once all that was put
// off is done.
func (s *settling) do(op func() error) error {
	if s.note(pendingOp{run: op}) {
		return nil
	}
	if err := s.wait(); err != nil {
		return err
	}
	return op()
}

// wait returns when all that was put off is done.
func (s *settling) wait() error {
	s.once.Do(func() { close(s.wanted) })
	<-s.done
	return s.err
}

// waitUnless is wait, but gives up with ErrStopped when stop is closed: on a full
// disk it can take as long as that is.
func (s *settling) waitUnless(stop <-chan struct{}) error {
	s.once.Do(func() { close(s.wanted) })
	select {
	case <-s.done:
		return s.err
	case <-stop:
		return ErrStopped
	}
}

// close closes a file in its turn.
func (s *settling) close(op func() error) error {
	if s.note(pendingOp{run: op, free: true}) {
		return nil
	}
	_ = s.wait()
	return op()
}

// opened says that Pebble is open.
func (s *settling) opened() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noting = false
}

// settle does what was put off, once it is time. It is called once.
func (s *settling) settle() error {
	timer := time.NewTimer(settleAfter)
	defer timer.Stop()
	select {
	case <-s.wanted:
	case <-timer.C:
	}
	return s.finish(false)
}

// finish does what was put off or, with drop, only closes the files.
func (s *settling) finish(drop bool) error {
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	defer close(s.done)
	for _, op := range s.pending {
		if op.free {
			_ = op.run() // what matters was synced
		} else if s.err == nil && !drop {
			s.err = op.run()
		}
	}
	s.pending = nil
	return s.err
}
