package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// store is a Pebble database with its own write-ahead log off, and what it takes to be
// rid of it when it breaks.
type store struct {
	dir  string
	db   *pebble.DB // nil until it is opened, see there
	opts *pebble.Options
	fs   *guardFS
	held *compactions // nil with a scheduler of the user's
	log  *slog.Logger

	there chan struct{} // closed when db is open

	room      room
	flushed   chan struct{} // capacity 1: a flush has ended
	eased     chan struct{} // capacity 1: a flush or a compaction has ended
	failing   chan error    // capacity 1: the newest failure of a background job
	fatal     chan struct{} // closed: Pebble met an error that it cannot survive
	fatalErr  error         // immutable once fatal is closed
	stuck     chan struct{} // closed before fatal if a goroutine of Pebble's is parked for good, or has ended in the middle of its work
	once      sync.Once
	parked    sync.Once
	closed    atomic.Bool
	abandoned atomic.Bool
	manifest  atomic.Bool    // Pebble has written one since it was opened
	calls     sync.WaitGroup // operations of call that have not returned
}

// newStore makes a store for Pebble in dir, to be opened. lock is Pebble's own lock on dir,
// held by the caller.
func newStore(dir string, user *pebble.Options, lock *pebble.Lock, log *slog.Logger) (*store, error) {
	s := &store{dir: dir, log: log, there: make(chan struct{}), flushed: make(chan struct{}, 1), eased: make(chan struct{}, 1), failing: make(chan error, 1), fatal: make(chan struct{}), stuck: make(chan struct{})}
	o := user.Clone()
	if o == nil {
		o = &pebble.Options{}
	}
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
	}
	s.fs = newGuardFS(fs)
	s.fs.quit = s.quit
	_, private := fs.(unsyncedFS)
	s.fs.rewrites = !private && !o.ReadOnly
	o.FS = s.fs
	o.Lock = lock
	o.DisableWAL = true
	// Writes wait at these limits, see room. They are far off unless the user sets
	// them; the default ones bound a memory that others read while it grows.
	if o.MemTableStopWritesThreshold == 0 {
		o.MemTableStopWritesThreshold = 8
	}
	if o.L0StopWritesThreshold == 0 {
		o.L0StopWritesThreshold = 64
	}
	if o.Experimental.CompactionScheduler == nil {
		s.held = newCompactions()
		o.Experimental.CompactionScheduler = s.held
	}
	s.listen(o)
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open Pebble in %s: %w", dir, err)
	}
	s.room.take(o)
	s.opts = o
	return s, nil
}

// open opens Pebble. It is called once; after an error there is nothing to close. Others
// may use db when there is closed.
func (s *store) open() error {
	if err := s.openPebble(); err != nil {
		s.closed.Store(true)
		s.fs.settling.opened()
		_ = s.fs.settling.finish(true) // only closes files
		if s.held != nil && !s.broken() {
			s.held.discard()
		}
		return err
	}
	s.fs.settling.opened()
	s.fs.waits.Store(true)
	if s.held != nil {
		close(s.held.opened)
	}
	close(s.there)
	go func() {
		if err := s.fs.settling.settle(); err != nil {
			s.fail(fmt.Errorf("settle after opening: %w", err))
		}
	}()
	return nil
}

// openPebble opens Pebble, or gives it up when it breaks on the way.
func (s *store) openPebble() error {
	type result struct {
		db  *pebble.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		db, err := pebble.Open(s.dir, s.opts)
		done <- result{db, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return openError(s.dir, r.err)
		}
		if s.db = r.db; !s.broken() {
			return nil
		}
	case <-s.fatal:
	}
	// As in close, but Pebble's reference to the lock is given back here: nobody asks
	// Abandoned of what was not open.
	s.fs.lower()
	var err error
	if s.opts.Lock != nil {
		err = s.opts.Lock.Close()
	}
	return errors.Join(fmt.Errorf("open Pebble in %s: %w", s.dir, s.fatalErr), err)
}

// isOpen tells whether open has succeeded.
func (s *store) isOpen() bool {
	select {
	case <-s.there:
		return true
	default:
		return false
	}
}

// listen puts our logger and listener before those of the user.
func (s *store) listen(o *pebble.Options) {
	var next pebble.Logger = pebbleLog{s.log}
	if o.Logger != nil {
		next = o.Logger
	}
	o.Logger = &fatalLogger{Logger: next, store: s}
	o.LoggerAndTracer = nil
	ours := pebble.EventListener{
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err != nil {
				return
			}
			s.fs.flushed()
			signal(s.flushed)
			signal(s.eased)
		},
		ManifestCreated: func(i pebble.ManifestCreateInfo) {
			s.fs.moving.Store(false)
			if i.Err == nil {
				s.manifest.Store(true)
			}
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			s.room.compacted(i.Err)
			signal(s.eased)
		},
		BackgroundError: func(err error) {
			s.log.Warn("pebble: background error", "err", err)
			select {
			case <-s.failing:
			default:
			}
			select {
			case s.failing <- err:
			default:
			}
		},
		// Without a handler Pebble ends the process.
		DataCorruption: func(i pebble.DataCorruptionInfo) { s.log.Error("pebble: data corruption", "info", i.String()) },
	}
	if o.EventListener == nil {
		o.EventListener = &ours
		return
	}
	tee := pebble.TeeEventListener(ours, *o.EventListener)
	o.EventListener = &tee
}

// signal sends to c, which has a capacity of 1, unless that is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// openError names what is wrong with the directory in this package's terms.
func openError(dir string, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "comparer name from"), strings.Contains(text, "merger name from"),
		strings.Contains(text, "format major version"), strings.Contains(text, "format version"):
		return fmt.Errorf("%w: open %s: %w", ErrIncompatible, dir, err)
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: open %s: %w", ErrCorrupt, dir, err)
	}
	return fmt.Errorf("open Pebble in %s: %w", dir, err)
}

// broken tells whether fail was called.
func (s *store) broken() bool {
	select {
	case <-s.fatal:
		return true
	default:
		return false
	}
}

// fail notes that Pebble cannot go on.
func (s *store) fail(err error) {
	s.once.Do(func() {
		s.fatalErr = err
		close(s.fatal)
	})
}

// park is called by a goroutine of Pebble's that cannot go on. It does not return.
func (s *store) park(err error) {
	s.halt(err)
	select {}
}

// halt notes that a goroutine of Pebble's ends in the middle of its work.
func (s *store) halt(err error) {
	s.parked.Do(func() { close(s.stuck) })
	s.fail(err)
}

// quit is called by a flush or a compaction that cannot bring the manifest on. It does not
// return. Whoever is reading needs Pebble's mutex, to let go of tables that were replaced
// meanwhile, so the goroutine must not keep it: it ends, and unlocks the mutex as it
// does. But then others may come to write the manifest, behind what was not written: the
// fence first.
func (s *store) quit(err error) {
	s.halt(err)
	s.fs.lower()
	runtime.Goexit()
}

// close closes Pebble, or gives it up if it is broken. Nobody may use db after.
func (s *store) close() error {
	select {
	case <-s.stuck:
		return s.abandon()
	default:
	}
	if s.closed.Swap(true) || !s.isOpen() {
		return nil
	}
	close(s.fs.stop)
	done := make(chan error, 1)
	go func() {
		// Whoever waits has to hear of it also if a broken Pebble panics.
		err := fmt.Errorf("pebble failed: %w, and panicked as it was closed", ErrFenced)
		defer func() { done <- err }()
		defer s.forgive()
		s.calls.Wait() // what call left behind is still in Pebble, which takes no notice of that
		err = s.db.Close()
	}()
	select {
	case err := <-done:
		if errors.Is(err, ErrFenced) {
			s.fs.lower() // whatever goroutines of it go on
		}
		return errors.Join(err, s.fs.settling.wait())
	case <-s.stuck:
		<-s.fatal
		select {
		case err := <-done:
			return err
		default:
		}
		// Parked perhaps with Pebble's mutex held, so Close may never return.
		return s.leave()
	}
}

// abandon gives Pebble up without closing it.
func (s *store) abandon() error {
	if s.closed.Swap(true) {
		return nil
	}
	close(s.fs.stop)
	s.fail(ErrFenced) // unless it says why already
	if !s.isOpen() {
		s.fs.lower() // and open, should it be under way, does the rest
		return fmt.Errorf("pebble failed: %w", s.fatalErr)
	}
	return s.leave()
}

// leave leaves a Pebble behind that is never closed, or not to the end. The fence
// keeps what is left of it off the disk; its memory is lost until the process ends.
func (s *store) leave() error {
	s.abandoned.Store(true)
	s.fs.left.Store(true)
	s.fs.lower()
	return fmt.Errorf("pebble failed: %w", s.fatalErr)
}

// call runs an operation of Pebble's that takes its mutex, unless Pebble breaks:
// then the mutex may be held for good, and the operation is left behind.
func (s *store) call(op func() error) error { return s.callUnless(nil, op) }

// callUnless is call, but leaves the operation behind with ErrStopped too when stop is
// closed: it may wait for a manifest, which on a full disk waits until close.
func (s *store) callUnless(stop <-chan struct{}, op func() error) error {
	done := make(chan error, 1)
	s.calls.Go(func() {
		defer s.forgive()
		done <- op()
	})
	select {
	case err := <-done:
		return err
	case <-stop:
		return ErrStopped
	case <-s.fatal:
		return fmt.Errorf("pebble failed: %w", s.fatalErr)
	}
}

// forgive is deferred where a broken Pebble may panic, much later, which is
// nobody's concern then.
func (s *store) forgive() {
	if !s.broken() {
		return
	}
	_ = recover()
}

// flush begins a flush; what it returns is closed when that has ended.
func (s *store) flush() (flushed <-chan struct{}, err error) {
	begun := make(chan (<-chan struct{}), 1)
	err = s.call(func() error {
		c, err := s.db.AsyncFlush()
		begun <- c
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-begun, nil
}

// fatalLogger stands between Pebble and the end of the process: Fatalf must not
// return, and a library must not exit.
type fatalLogger struct {
	pebble.Logger
	store *store
}

func (l *fatalLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if e, ok := a.(error); ok { // keep the cause for errors.Is
			err = errors.Join(err, e)
		}
	}
	if s := l.store; s.fs.waits.Load() && strings.HasPrefix(err.Error(), "MANIFEST ") {
		s.quit(err)
	}
	l.store.park(err)
}

// pebbleLog sends Pebble's log to slog.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("pebble: " + fmt.Sprintf(format, args...))
}
func (l pebbleLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }
