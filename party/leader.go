package party

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/embednats"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// leader is one term of leadership: everything that only the holder of the lock
// may have. acquire builds it in the order of its fields, release takes it down
// in the reverse order.
type leader struct {
	db *DB

	// Immutable once anybody but acquire knows of it, which begins with the writers of this process.
	lock       *leaderLock
	pebbleLock *pebble.Lock
	machine    *apply.Machine
	word       *eventlog.Commit
	log        *eventlog.Log
	term       uint64
	first      uint64 // sequence number of the record that began the term
	revokes    bool   // replicas are of no use once the term has begun
	station    *station
	buffer     []byte // for the log to read into
	address    embednats.Address
	published  endpoint // what the others were told
	seq        *sequencer
	desk       *desk
	notifier   *notifier
	scans      *scans
	started    time.Time

	ctx    context.Context // the term's; ends with its cause
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // sequencer, replay, desk, keeper
	ended  chan struct{}  // closed when all work has ended, or has been given up
	grew   chan int       // bytes appended to the log, for the keeper

	begun atomic.Bool // the commit word counts the term's record

	answered chan struct{} // capacity 1: the bundle of this process is answered
	memory   *memoryFile   // owned by acquire, then by seq

	holds holds // on the log, against retention

	gate *gate // passed by whoever uses the state from a goroutine of its own

	replies struct { // to this process's own bundles
		sync.Mutex
		over bool // nobody waits for them any more
	}
}

// errBusy: somebody holds Pebble's own lock although the leader lock was free.
var errBusy = errors.New("party: Pebble's LOCK file is held")

// stopServing ends the term for everybody: no call is answered after it. idle
// tells whether no goroutine uses the state any more.
func (l *leader) stopServing(cause error) (idle bool, err error) {
	var errs []error
	l.cancel(cause)
	if l.machine != nil {
		l.machine.Stop(errLost)
	}
	idle = l.join()
	if l.address != "" {
		errs = append(errs, removeFile(l.db.path("endpoint"))) // now that the keeper does not put it back
	}
	if l.station != nil {
		errs = append(errs, l.station.close())
	}
	return idle, errors.Join(errs...)
}

// join returns true when no goroutine uses the state any more. If Pebble broke,
// one may be parked inside it for good, or wait for a disk that answers no more;
// then join returns false after a moment, and it is left there.
func (l *leader) join() (idle bool) {
	done := make(chan struct{})
	go func() {
		l.gate.close()
		l.work.Wait()
		close(done)
	}()
	if idle = l.finished(done); !idle {
		l.db.log.Error("party: Pebble broke, and a goroutine does not come back from the disk or from it", "term", l.term)
	}
	l.replies.Lock()
	l.replies.over = true
	l.replies.Unlock()
	close(l.ended)
	return idle
}

// finished waits until done is closed. If Pebble broke, whoever closes it may be
// stuck there for good: then it waits for a moment only, and returns false.
func (l *leader) finished(done <-chan struct{}) bool {
	var broken <-chan struct{}
	if l.machine != nil {
		broken = l.machine.Failed()
	}
	select {
	case <-done:
		return true
	case <-broken:
	}
	select {
	case <-done:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// release gives up leadership, in the reverse order of acquire. With clean set
// the state is made complete first, for plain Pebble to open.
func (l *leader) release(clean bool) error {
	idle, err := l.stopServing(errTermOver)
	errs := []error{err}
	if l.machine != nil && !l.scans.close() {
		idle = false
	}
	if l.word != nil {
		errs = append(errs, l.word.Close())
	}
	// Pebble before the log: its last flush syncs the log first.
	if l.machine != nil && idle {
		errs = append(errs, l.machine.Close(clean))
	} else if l.machine != nil {
		// Whoever is left in it would find it closed, which is a panic, or worse.
		errs = append(errs, l.machine.Abandon())
	}
	if l.log != nil {
		if clean {
			errs = append(errs, l.log.Close())
		} else {
			errs = append(errs, l.log.Abort())
		}
	}
	if l.pebbleLock != nil {
		if l.machine != nil && l.machine.Abandoned() {
			errs = append(errs, l.pebbleLock.Close()) // the reference that Pebble never gives back
		}
		errs = append(errs, l.pebbleLock.Close())
	}
	return errors.Join(append(errs, l.lock.unlock())...)
}

// watch ends the term when something breaks that it must not survive. It never
// calls into what it watches.
func (l *leader) watch() {
	select {
	case <-l.ctx.Done():
	case <-l.machine.Failed():
		l.cancel(l.machine.Err())
	case <-l.log.Failed():
		l.cancel(l.log.Err())
	case <-l.station.disconnected:
		l.cancel(errors.New("lost the connection to the NATS server in this process"))
	}
}

// current brings the state up to all that is committed, for a linearizable read.
func (l *leader) current(ctx context.Context) error {
	if mutant.DeposedLeader && l.word.Term() != l.term && l.machine.Applied() > 0 {
		return nil
	}
	return l.machine.WaitApplied(ctx, l.word.Committed())
}

// get reads each of keys at some moment between call and return; nil for an
// absent key.
func (l *leader) get(ctx context.Context, keys [][]byte) ([][]byte, error) {
	if !l.gate.enter() {
		return nil, errLost
	}
	defer l.gate.exit()
	if err := l.current(ctx); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, k := range keys {
		v, err := l.machine.Get(nil, k)
		switch {
		case errors.Is(err, pebble.ErrNotFound):
		case err != nil:
			return nil, wrapError(err)
		case v == nil:
			values[i] = []byte{}
		default:
			values[i] = v
		}
	}
	return values, nil
}

// send and wait make the leader the route of this process's own calls: writes go
// to the sequencer, reads are done on the spot.
func (l *leader) send(slot int, bundle []*call) {
	if bundle[0].cmd == nil {
		return
	}
	committed := l.log.Durable() // what the word says may be of the time before a power cut
	if l.begun.Load() {
		committed = l.word.Committed()
	}
	job := &job{req: writeRequest{Origin: l.db.origin, Conn: ^uint64(0), Low: bundle[0].cmd.Number}}
	job.req.Commands = make([]apply.Command, len(bundle))
	for i, c := range bundle {
		c.cmd.Low = job.req.Low
		if !c.cmd.Retry {
			c.cmd.Since = committed
		}
		job.req.Commands[i] = *c.cmd
	}
	job.reply = func(committed uint64, answers []apply.Answer) {
		l.replies.Lock()
		defer l.replies.Unlock()
		if l.replies.over {
			return // the bundle was given up and may be on its way to another leader
		}
		for i := range bundle {
			bundle[i].answer = answers[i]
		}
		l.db.learn(committed)
		l.answered <- struct{}{}
	}
	select {
	case l.seq.local <- job:
	case <-l.ctx.Done():
	}
}

func (l *leader) wait(ctx context.Context, slot int, bundle []*call) error {
	if bundle[0].cmd != nil {
		return l.waitAnswers(ctx)
	}
	for _, c := range bundle {
		values, err := l.get(ctx, c.keys)
		switch {
		case errors.Is(err, errLost):
			return err
		case err != nil && ctx.Err() != nil:
			return errLeft
		}
		c.values, c.err = values, err
	}
	return nil
}

// waitAnswers waits for the answers to the one bundle that is under way.
func (l *leader) waitAnswers(ctx context.Context) error {
	select {
	case <-l.answered:
		return nil
	case <-ctx.Done():
		return errLeft
	case <-l.ended:
	}
	select { // did it answer before it ended?
	case <-l.answered:
		return nil
	default:
		return errLost
	}
}

// preflush has Pebble make the state durable while the term goes on, so that the
// end of it is short. A failure shows again, and is reported, at the end.
func (l *leader) preflush() {
	if err := l.machine.Flush(l.ctx.Done()); err != nil {
		l.db.log.Debug("party: flush before the end of the term", "err", err)
	}
}
