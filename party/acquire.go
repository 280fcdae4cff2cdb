package party

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// acquire makes this process the leader; it owns lock and, if there is one, the
// station that is ready from here on. It fails with everything undone again. The steps:
//
//	Pebble's lock → log → socket → endpoint → who wrote what → next term → sync of the log
//	→ commit word → sequencer and desk, and beside them Pebble and replay
//
// Pebble waits a little for those who connect, see replay.
//
// Where nobody has written down who wrote what (memoryFile), Pebble is opened before the term
// and asked for it. Where this process has not followed, so it is, beside the log, and NATS, socket
// and endpoint beside both; and there is a probe first.
//
// From the endpoint on followers connect, introduce themselves and send what they have to
// write; they are answered, and have a leader, when the term has begun.
func acquire(db *DB, lock *leaderLock, ready *station) (_ *leader, err error) {
	l := &leader{
		db: db, lock: lock, station: ready, started: time.Now().UTC(),
		ended: make(chan struct{}), grew: make(chan int, 1), answered: make(chan struct{}, 1), gate: newGate(),
	}
	if ready != nil {
		l.buffer, ready.buffer = ready.buffer, nil
	}
	l.scans = newScans(l)
	l.memory = newMemoryFile(db.path("memory"), db.opts.Pebble.FS)
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			db.routeWrites(nil)
			err = errors.Join(err, l.release(false))
		}
	}()
	if err := checkRoom(db.dir, db.opts.Pebble.FS); err != nil {
		return l, err
	}
	if l.pebbleLock, err = lockPebble(db.dir, db.opts.Pebble); err != nil {
		return l, err
	}
	if ready == nil { // else a leader could write a moment ago
		if err := probe(db.path("probe"), db.opts.Pebble.FS); err != nil {
			return l, err
		}
	}
	if err := l.openParts(); err != nil {
		return l, err
	}
	if err := l.beginTerm(); err != nil {
		return l, err
	}
	l.serve()
	return l, nil
}

// minRoom is the space that must be free, in bytes, for Pebble to be opened,
// which writes an options file at once and a manifest a little later.
const minRoom = 1 << 20

// checkRoom refuses to open Pebble on a full disk. A Pebble that meets that in
// the middle has to be given up, and what it holds is not freed; this is tried
// again every second for as long as the disk is full. It does not see a quota.
func checkRoom(dir string, fs vfs.FS) error {
	u, err := fs.GetDiskUsage(dir)
	if err != nil {
		return nil // no system tells everything
	}
	if u.AvailBytes < minRoom {
		return fmt.Errorf("%w: %s: %d bytes are free, %d are needed to open the database", ErrDiskFull, dir, u.AvailBytes, minRoom)
	}
	return nil
}

// probe is checkRoom for what only writing finds out: a quota that is used up, or a
// file system without inodes.
func probe(path string, fs vfs.FS) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make a file in the database's directory: %w", err)
	}
	_, err = f.Write(zeros[:])
	err = errors.Join(err, f.Close())
	_ = fs.Remove(path) // one that stays does no harm
	if err != nil {
		return fmt.Errorf("%d bytes are needed to open the database: %w", minRoom, err)
	}
	return nil
}

// zeros is never written, and so takes no memory.
var zeros [minRoom]byte

// openParts opens what does not depend on each other at the same time, and joins
// state and log: a failover waits for it.
func (l *leader) openParts() error {
	there, err := eventlog.Exists(l.db.opts.Pebble.FS, l.db.path("log"))
	if err != nil {
		return err
	}
	if there && l.station != nil {
		// This process has followed, and knows that the database is one that it can open. What waits
		// with the others is to be there when the term begins.
		memory := l.recall()
		if err := l.openLog(apply.MemoryPosition(memory)); err != nil {
			return err
		}
		if err := l.listen(); err != nil {
			return err
		}
		if err := l.publish(l.log.ID(), l.log.Term()+1); err != nil {
			return err
		}
		if l.resume(memory); l.machine != nil {
			return nil
		}
	}
	var server error
	var listening sync.WaitGroup
	if l.address == "" {
		listening.Go(func() {
			if server = l.listen(); server == nil {
				server = l.announce()
			}
		})
	}
	err = l.openState(there)
	listening.Wait()
	return errors.Join(err, server)
}

// recall returns what the last leader wrote down, nil if that cannot be had.
func (l *leader) recall() []byte {
	memory, err := l.memory.read()
	if err != nil {
		l.db.log.Debug("party: read what the last leader wrote down", "err", err)
		return nil
	}
	return memory
}

// resume makes a machine that takes writes before Pebble is open, from what the last
// leader wrote down. If it cannot, it leaves none.
func (l *leader) resume(memory []byte) {
	if memory == nil {
		return
	}
	m, err := apply.Resume(l.db.dir, l.db.opts.Pebble, l.pebbleLock, l.db.log, l.log, memory)
	if err != nil {
		l.db.log.Debug("party: Pebble has to be opened before the term begins", "err", err)
		return
	}
	l.machine = m
}

// openState opens Pebble, and the log if that is there and not open yet.
func (l *leader) openState(there bool) (err error) {
	var log error
	var opening sync.WaitGroup
	if there && l.log == nil {
		opening.Go(func() { log = l.openLog(eventlog.Position{}) })
	}
	l.machine, err = apply.Open(l.db.dir, l.db.opts.Pebble, l.pebbleLock, l.db.log)
	opening.Wait()
	if err == nil && !there {
		log = l.beginLog() // where it has to start is known only now
	}
	if err = errors.Join(err, log); err != nil {
		return err
	}
	if err := l.machine.Recover(l.log); err != nil {
		return err
	}
	return l.memory.remove()
}

// lockPebble takes the lock that plain Pebble takes. When a leader has just been
// killed the kernel frees our lock some microseconds before Pebble's.
func lockPebble(dir string, o *pebble.Options) (*pebble.Lock, error) {
	deadline := time.Now().Add(100 * time.Millisecond)
	for {
		lock, err := pebble.LockDirectory(dir, o.FS)
		if err == nil {
			return lock, nil
		}
		if !isLocked(err) {
			return nil, fmt.Errorf("lock %s: %w", filepath.Join(dir, "LOCK"), err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: %w", errBusy, err)
		}
		briefly(100 * time.Microsecond)
	}
}

// openLog opens the log, from is where the last leader may have been in it. That it belongs to the state is
// checked when both are open.
func (l *leader) openLog(from eventlog.Position) (err error) {
	o := l.logOptions()
	o.From = from
	if word, err := eventlog.ReadCommit(l.db.path("commit")); err == nil {
		o.ID, o.DurableHint = word.ID(), word.Durable()
		if err := word.Close(); err != nil {
			return err
		}
	}
	if l.log, err = eventlog.Open(l.db.path("log"), o); errors.Is(err, eventlog.ErrForeign) {
		// Either the log or the commit word is of another database. The word is
		// only a hint; the state judges the log.
		o.ID, o.DurableHint, o.From = eventlog.ID{}, 0, eventlog.Position{}
		l.log, err = eventlog.Open(l.db.path("log"), o)
	}
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	return nil
}

func (l *leader) logOptions() eventlog.Options {
	return eventlog.Options{
		FS: l.db.opts.Pebble.FS, SegmentBytes: segmentBytes, Now: l.db.opts.Now, Buffer: l.buffer,
		Damaged: func(err error) { l.db.log.Error("party: old log is damaged; the database is not", "err", err) },
	}
}

// segmentBytes is the size of a log segment: what a failover has to read of the
// log besides what it replays is half of it on average.
const segmentBytes = 2 << 20

// beginLog begins a log for a state that has none.
func (l *leader) beginLog() (err error) {
	clean, err := l.machine.Clean()
	if err != nil {
		return err
	}
	lost := l.machine.Applied() > 0 && !clean
	if word, err := eventlog.ReadCommit(l.db.path("commit")); err == nil {
		lost = lost || word.ID() == l.machine.ID() && word.Durable() > l.machine.Applied()
		if err := word.Close(); err != nil {
			return err
		}
	}
	if lost {
		return fmt.Errorf("%w: %s is missing or empty, and the last leader did not close cleanly: "+
			"writes since its last flush were only there; put the folder back", ErrCorrupt, l.db.path("log"))
	}
	o := l.logOptions()
	o.ID, o.After = l.machine.ID(), l.machine.Applied()
	if l.log, err = eventlog.Open(l.db.path("log"), o); err != nil {
		return fmt.Errorf("begin the log: %w", err)
	}
	return nil
}

// beginTerm begins the term.
func (l *leader) beginTerm() (err error) {
	last := l.log.Last() // before StartTerm skips numbers that were promised
	if l.term, l.first, err = l.log.StartTerm(l.db.opts.Now()); err != nil {
		return fmt.Errorf("begin a term: %w", err)
	}
	if err := l.publish(l.log.ID(), l.term); err != nil {
		return err
	}
	if l.word, err = eventlog.OpenCommit(l.db.path("commit"), l.log.ID()); err != nil {
		return fmt.Errorf("open the commit word: %w", err)
	}
	// A word that is new, or not the last leader's, or a log that is shorter than
	// the word says, as a disk that failed may leave it: replicas must not go by what
	// they have.
	if t := l.word.Term(); t != 0 {
		l.revokes = t != l.term-1 || l.word.Committed() > last
	} else if err := snapshot.Revoke(l.ctx, l.db.path("replicas")); err != nil {
		return err // now, as they may find the new word, which counts nothing
	}
	l.notifier = newNotifier(l)
	l.seq = newSequencer(l)
	l.desk = newDesk(l)
	// The writes that wait in this process may come now, and share the first sync, as those of
	// followers do. All else comes when this process is known to lead.
	l.db.routeWrites(l)
	runtime.Gosched()
	if err := l.seq.begin(l.ctx); err != nil {
		return fmt.Errorf("begin a term: %w", err)
	}
	return nil
}

// begins is called by the sequencer when the record of the term is durable: an attempt to
// lead that fails takes the replicas from nobody.
func (l *leader) begins() error {
	if l.revokes {
		if err := snapshot.Revoke(l.ctx, l.db.path("replicas")); err != nil {
			return err
		}
	}
	l.word.SetTerm(l.term)
	return nil
}

// serve begins to work.
func (l *leader) serve() {
	replayed := l.seq.replayed
	l.work.Go(func() { l.replay(replayAfter); close(replayed) })
	l.work.Go(func() { l.cancel(l.seq.run(l.ctx)) })
	l.desk.start(&l.work)
	l.work.Go(l.keep)
	l.work.Go(func() { l.notifier.run(l.ctx) })
	l.work.Go(l.watch)
	l.work.Go(l.sweep)
}

// replayAfter is for how long the writers of the last term, who connect now, have the processors
// to themselves, unless somebody waits for the state. Three took about 4 ms on two processors.
const replayAfter = 5 * time.Millisecond

// replay opens Pebble, if that has to be done, and brings it up to the log: when the state is
// wanted, at the latest after a while.
func (l *leader) replay(after time.Duration) {
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-l.machine.Wanted():
	case <-t.C:
	case <-l.ctx.Done():
	}
	l.machine.Replay(l.ctx)
}

// listen opens the server to the others.
func (l *leader) listen() (err error) {
	if l.station == nil {
		if l.station, err = newStation(l.db.log); err != nil {
			return fmt.Errorf("start the NATS server: %w", err)
		}
	}
	l.address, err = l.station.server.Listen(l.db.path(""))
	return err
}

// announce tells the others where to find this leader before the log is open: whoever lost has an end
// to its looking then, and leaves the processor to this process. What becomes of the term is
// not known yet; the commit word says which it should be.
func (l *leader) announce() error {
	word, err := eventlog.ReadCommit(l.db.path("commit"))
	if err != nil {
		return nil // a new database, or damage that is dealt with when the log is open
	}
	return errors.Join(l.publish(word.ID(), word.Term()+1), word.Close())
}

// publish tells the others where to find this leader, unless that is what they
// were told last.
func (l *leader) publish(id eventlog.ID, term uint64) error {
	directory, err := directoryID(l.db.dir)
	if err != nil {
		return err
	}
	e := endpoint{Directory: directory, Database: id.String(), Term: term, PID: os.Getpid(), Started: l.started, Address: l.address}
	if e == l.published {
		return nil
	}
	if err := e.publish(l.db.path("endpoint")); err != nil {
		return err
	}
	l.published = e
	return nil
}
