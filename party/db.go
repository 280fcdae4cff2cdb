package party

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pebbleparty/pebbleparty/apply"
)

// DB is a handle on a database that any number of processes, and any number of
// handles in one process, have open at the same time. All methods may be called
// from any goroutine.
type DB struct {
	// Immutable.
	dir      string // absolute, symbolic links resolved
	opts     Options
	log      *slog.Logger
	origin   apply.Origin
	writes   *lane
	reads    *lane
	resign   chan chan struct{} // to the member, which closes what it gets when leadership is given up
	cancel   context.CancelFunc
	ended    chan struct{} // closed when the member has ended
	events   *eventQueue
	replicas *replicas // this process's own copies of the state
	local    *local    // reads from one of them

	subscriptions *subscriptions

	known       atomic.Uint64 // highest sequence number that is known to be committed
	uploads     atomic.Uint64
	checkpoints atomic.Uint64          // asked for so far
	leading     atomic.Pointer[leader] // the short way for this process's own reads

	closing  sync.Once
	closeErr error // owned by the member until ended

	mu struct {
		sync.Mutex
		state   state
		changed chan struct{} // closed when state changes
		closed  bool
	}
}

// state is the role and what goes with it.
type state struct {
	role   Role
	leader *leader // Leading
	remote *remote // Following
	term   uint64
	pid    int
	cause  error // why the role before ended
	err    error // Electing: why the last attempt failed
}

// Open joins the database in dir, which is created if it does not exist; a
// database made by plain Pebble is adopted as it is. The handle leads if nobody
// does, else it follows; which of the two makes no difference to the caller.
//
// Open blocks until there is a leader, at most until ctx ends; a leader that is
// stopped (SIGSTOP) keeps it waiting. ctx does not matter afterwards.
//
// The errors are ErrIncompatible, ErrCorrupt, ErrInUse, ErrNetworkFS,
// ErrReservedKey (the database has keys where ours would go), ErrDiskFull, what
// is wrong with opts, what the file system said, or that of ctx. No key of the
// database was changed then.
func Open(ctx context.Context, dir string, opts *Options) (*DB, error) {
	o, err := prepare(opts)
	if err != nil {
		return nil, err
	}
	resolved, err := prepareDir(dir, o.AllowNetworkFS)
	if err != nil {
		return nil, fmt.Errorf("party: open %s: %w", dir, err)
	}
	db := &DB{
		dir: resolved, opts: o, log: o.Logger,
		writes: newLane(1, o.NoRetry),
		reads:  newLane(readSlots, o.NoRetry),
		resign: make(chan chan struct{}),
		ended:  make(chan struct{}),
		events: newEventQueue(o.Events),
	}
	if _, err := rand.Read(db.origin[:]); err != nil {
		return nil, fmt.Errorf("party: open %s: %w", dir, err)
	}
	db.replicas = newReplicas(db)
	db.subscriptions = newSubscriptions(db)
	db.mu.changed = make(chan struct{})
	db.local = newLocal(db)
	run, cancel := context.WithCancel(context.Background())
	db.cancel = cancel
	m := &member{db: db, lock: db.path("leader.lock")}
	go func() {
		defer close(db.ended)
		m.run(run)
	}()
	if _, err := db.route(ctx); err != nil {
		err = db.explain(err)
		return nil, errors.Join(fmt.Errorf("party: open %s: %w", dir, err), ignoreClosed(db.Close()))
	}
	return db, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// setRole tells everybody where calls go from now on.
func (db *DB) setRole(s state) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if old := db.mu.state; old.role != s.role || old.term != s.term {
		db.events.post(RoleChange{Role: s.role, Term: s.term, LeaderPID: s.pid, Cause: s.cause, Time: time.Now()})
	}
	db.mu.state = s
	db.leading.Store(s.leader)
	var r route
	switch {
	case s.leader != nil:
		r = s.leader
	case s.remote != nil:
		r = s.remote
	}
	if !db.mu.closed {
		db.writes.setRoute(r)
		db.reads.setRoute(r)
	}
	close(db.mu.changed)
	db.mu.changed = make(chan struct{})
}

// routeWrites is setRole for writes only.
func (db *DB) routeWrites(r route) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.mu.closed {
		db.writes.setRoute(r)
	}
}

// fail tells those who wait for a leader why there is none.
func (db *DB) fail(err error) {
	db.setRole(state{role: Electing, err: err})
	err = fmt.Errorf("party: nobody leads %s: %w", db.dir, err)
	db.writes.failQueued(err)
	db.reads.failQueued(err)
}

// route returns the present route, and waits for one when there is none: until
// ctx ends, the handle is closed, or an attempt to get one fails.
func (db *DB) route(ctx context.Context) (state, error) {
	db.mu.Lock()
	for {
		if db.mu.closed {
			db.mu.Unlock()
			return state{}, ErrClosed
		}
		s, changed := db.mu.state, db.mu.changed
		db.mu.Unlock()
		if s.leader != nil || s.remote != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state{}, ctx.Err()
		}
		db.mu.Lock()
		if err := db.mu.state.err; err != nil {
			db.mu.Unlock()
			return state{}, err
		}
	}
}

// leave waits until old, whose route was lost, is no longer the state.
func (db *DB) leave(ctx context.Context, old state) error {
	for {
		db.mu.Lock()
		s, changed := db.mu.state, db.mu.changed
		db.mu.Unlock()
		if s.leader != old.leader || s.remote != old.remote {
			return nil
		}
		select {
		case <-changed:
		case <-db.ended:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// explain adds to the end of a context why there was no answer.
func (db *DB) explain(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	db.mu.Lock()
	s := db.mu.state
	db.mu.Unlock()
	switch e, eerr := readEndpoint(db.dir); {
	case s.role == Following:
		return fmt.Errorf("%w: no answer yet from the leader, pid %d", err, s.pid)
	case s.role == Leading || eerr != nil:
		return err
	default:
		return fmt.Errorf("%w: pid %d holds the lock and does not answer: is it stopped?", err, e.PID)
	}
}

// untidy tells whether a handle that does not lead should look if anybody does
// as it closes: only if it has ever had a role.
func (db *DB) untidy() bool { return db.known.Load() > 0 }

// Resign hands leadership to another process and keeps the handle, which follows
// then. It blocks until this handle no longer leads, or until ctx ends, and does
// nothing if it does not lead. No call of anybody's fails; calls wait while the
// others elect a leader. They have the first chance; when none takes it within
// 300 milliseconds, or there is none, this handle leads again.
func (db *DB) Resign(ctx context.Context) error {
	if _, err := db.route(ctx); err != nil {
		return db.explain(err)
	}
	done := make(chan struct{})
	select {
	case db.resign <- done:
	case <-db.ended:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close leaves the database. If this handle leads, it makes everything durable,
// whatever was written with NoSync too, and hands over; no call of another
// handle fails. After the last handle has closed, plain Pebble can open the
// directory. Calls of this handle that are under way fail with ErrClosed, as do
// those that come later; further calls of Close return ErrClosed.
//
// An error says that something of the end went wrong, most likely that the disk
// is full: then the writes that Pebble could not flush are in the log, and the
// next handle finds them, but plain Pebble would not. So does the last handle of
// all if the leader before it was killed and it cannot do in its place what that
// had left to do. The handle is closed all the same, and no write is lost.
//
// Snapshots of the handle are closed too. Close waits for Pebble to flush and for
// the goroutines of the handle. It must not be called from a function in
// Options.Events.
func (db *DB) Close() error {
	err := ErrClosed
	db.closing.Do(func() {
		db.mu.Lock()
		db.mu.closed = true
		close(db.mu.changed)
		db.mu.changed = make(chan struct{})
		db.mu.Unlock()
		db.writes.close(ErrClosed)
		db.reads.close(ErrClosed)
		db.subscriptions.close()
		db.cancel()
		db.local.close()
		<-db.ended
		db.replicas.close()
		db.writes.left.Wait()
		db.reads.left.Wait()
		db.events.close()
		err = wrapError(db.closeErr)
	})
	return err
}
