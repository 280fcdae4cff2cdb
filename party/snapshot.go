package party

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// Snapshot is the database at one sequence number. It lives in this process, on
// a copy of its own, so it gives the same answers whatever becomes of leaders,
// and reading it asks nobody. All methods may be called from any goroutine.
//
// What a snapshot costs: the first one of a handle has the leader link a
// checkpoint (some milliseconds and a few files of the file system), which this
// process opens with Options.Pebble, so with a block cache of its own. Those that
// follow share it and cost what the log holds since the one before. While the copy
// is there it keeps tables on disk that the leader has compacted away since: at
// most the size of the database, for as long as the oldest snapshot on it is
// open. It goes ten seconds after the last one was closed, or with Close of the
// handle. If the process is killed, the leader removes it within a minute; if there
// is none, the next one does as it begins.
type Snapshot struct {
	// Immutable.
	replicas *replicas
	replica  *replica
	view     *apply.View
	cmp      *pebble.Comparer

	gate    *gate // passed by who reads
	pins    pins  // of its iterators
	closing sync.Once
}

// NewSnapshot returns the database as of a moment between call and return: it
// has every write, of any process, that returned before the call. The caller must
// Close it. The handle may lead or follow.
//
// It blocks for some milliseconds, and longer while there is no leader if the
// handle has no copy yet (see Snapshot); at most until ctx ends, which does not
// matter afterwards.
//
// The errors are ErrClosed, ErrDiskFull, ErrCorrupt, ErrCompacted when the log is
// removed faster than this process can read it, ErrLeaderLost with Options.NoRetry, what the file system said, or that of ctx.
func (db *DB) NewSnapshot(ctx context.Context) (*Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := db.replicas.snapshot(ctx)
	if err == nil {
		return s, nil
	}
	if errors.Is(err, ErrClosed) {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, db.explain(ctx.Err())
	}
	return nil, fmt.Errorf("party: snapshot: %w", wrapError(err))
}

// Seq returns the sequence number: the snapshot has all events up to it and none
// behind it. A subscription from Seq()+1 on gives what has changed since. It
// needs no open snapshot.
func (s *Snapshot) Seq() uint64 { return s.view.Seq() }

// enter lets a reader in until it calls s.gate.exit.
func (s *Snapshot) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.gate.enter() {
		return ErrClosed
	}
	return nil
}

// Get returns the value of key, which belongs to the caller. The error is
// pebble.ErrNotFound if there is none, ErrClosed, ErrCorrupt, what the file system
// said, or that of ctx, which is looked at before.
func (s *Snapshot) Get(ctx context.Context, key []byte) ([]byte, error) {
	values, err := s.GetMany(ctx, [][]byte{key})
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, pebble.ErrNotFound
	}
	return values[0], nil
}

// GetMany returns the values of keys in their order, nil for a key that is
// missing and an empty slice for an empty value, all of the same moment. The
// errors are those of Get but for pebble.ErrNotFound.
func (s *Snapshot) GetMany(ctx context.Context, keys [][]byte) ([][]byte, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.exit()
	values := make([][]byte, len(keys))
	for i, k := range keys {
		v, err := s.view.Get([]byte{}, k)
		switch {
		case err == nil:
			values[i] = v
		case !errors.Is(err, pebble.ErrNotFound):
			return nil, wrapError(err)
		}
	}
	return values, nil
}

// Has tells whether key exists. The errors are those of GetMany.
func (s *Snapshot) Has(ctx context.Context, key []byte) (bool, error) {
	values, err := s.GetMany(ctx, [][]byte{key})
	return err == nil && values[0] != nil, err
}

// NewIter returns an iterator over the snapshot, as DB.NewIter does; Strict
// makes no difference, as it never has to resume. After Close of the snapshot it
// stops with ErrClosed.
func (s *Snapshot) NewIter(ctx context.Context, o *IterOptions) (*Iterator, error) {
	return newIterator(ctx, o, s.openIter)
}

func (s *Snapshot) openIter(ctx context.Context, o *IterOptions, at *snapshot.Position, _ *atomic.Bool) (source, page, error) {
	if err := s.enter(ctx); err != nil {
		return nil, page{}, err
	}
	defer s.gate.exit()
	p := s.replicas.lend(s.replica)
	if err := s.pins.pin(p, s.view, o.bounds(), s.cmp, at); err != nil {
		return nil, page{}, wrapError(err)
	}
	return p, page{}, nil
}

// Close ends the snapshot: reads that come later, and its iterators when they are
// moved, fail with ErrClosed. It waits for reads under way, and not for iterators:
// what they look at stays until they are moved or closed. Further calls do
// nothing. DB.Close closes all snapshots of the handle. The error is nil.
func (s *Snapshot) Close() error {
	s.closing.Do(func() {
		s.gate.close()
		s.replicas.forget(s)
		s.end()
	})
	return nil
}

// end gives back what the snapshot holds.
func (s *Snapshot) end() {
	s.pins.close()
	s.view.Close()
	s.replicas.release(s.replica)
}
