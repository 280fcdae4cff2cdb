package apply

import (
	"context"
	"sync/atomic"
)

// This file is how others wait for what the sequencer and the replay do.

func (m *Machine) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

// Wanted returns a channel that is closed once somebody waits for the state of a machine that
// is Behind: until then, who is to call Replay may have more urgent things to do.
func (m *Machine) Wanted() <-chan struct{} { return m.wanted }

// Want closes Wanted, as WaitApplied does when it has to wait, and Flush and Checkpoint do. It
// is safe for concurrent use, and may be called more than once.
func (m *Machine) Want() { m.want.Do(func() { close(m.wanted) }) }

// whenReady waits for Pebble to be open and known to be ours. The error is ErrStopped when stop
// is closed first, or why Pebble broke.
func (m *Machine) whenReady(stop <-chan struct{}) error {
	m.Want()
	select {
	case <-m.ready:
		return nil
	default:
	}
	select {
	case <-m.ready:
		return nil
	case <-stop:
		return ErrStopped
	case <-m.store.fatal:
		return m.Err()
	}
}

// advance publishes a new sequence number, of m.judged or m.applied.
func (m *Machine) advance(to *atomic.Uint64, seq uint64) {
	to.Store(seq)
	m.wait.Lock()
	m.wake()
	m.wait.Unlock()
}

// wake lets those who wait look again. wait is held.
func (m *Machine) wake() {
	if m.wait.changed != nil {
		close(m.wait.changed)
		m.wait.changed = nil
	}
}

// WaitApplied returns once everything up to seq is applied. It waits for the
// sequencer, between making an entry durable and applying it: microseconds, but
// for as long as it takes while the machine is Behind. It fails when ctx ends first,
// or when the machine is stopped.
func (m *Machine) WaitApplied(ctx context.Context, seq uint64) error {
	if m.Applied() < seq {
		m.Want()
	}
	return m.waitFor(ctx, &m.applied, seq)
}

// WaitJudged is WaitApplied for who asks for nothing but Cursors. It never waits for
// Pebble.
func (m *Machine) WaitJudged(ctx context.Context, seq uint64) error {
	return m.waitFor(ctx, &m.judged, seq)
}

func (m *Machine) waitFor(ctx context.Context, what *atomic.Uint64, seq uint64) error {
	for what.Load() < seq {
		m.wait.Lock()
		if m.wait.failed != nil {
			defer m.wait.Unlock()
			return m.wait.failed
		}
		if what.Load() >= seq {
			m.wait.Unlock()
			return nil
		}
		if m.wait.changed == nil {
			m.wait.changed = make(chan struct{})
		}
		changed := m.wait.changed
		m.wait.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Stop makes WaitApplied give up with err for what is not applied yet, and
// checkpoints that are being made end with ErrStopped.
func (m *Machine) Stop(err error) {
	m.store.fs.away.over()
	m.wait.Lock()
	defer m.wait.Unlock()
	if m.wait.failed == nil {
		m.wait.failed = err
	}
	m.wake()
}
