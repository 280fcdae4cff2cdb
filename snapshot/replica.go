package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// ReplicaOptions say where a replica finds the database. All fields are needed.
type ReplicaOptions struct {
	Root   string // folder of all replicas
	Log    string // folder of the log
	Commit string // path of the commit word
	// Pebble is how the copy is opened: Comparer and Merger of the database, FS as
	// the leader's.
	Pebble *pebble.Options
	// Checkpoint has the leader make a checkpoint for replica id and returns
	// where: a CheckpointPath with a number that was not used before.
	Checkpoint func(ctx context.Context, id string) (path string, err error)
	Logger     *slog.Logger
}

// Replica is a process's own copy of the state: a checkpoint of the leader's
// Pebble, hard-linked, opened by this process and brought up to date from the
// log's files whenever it is looked at. It asks the leader for the checkpoint and
// for nothing else. All methods may be called from any goroutine.
type Replica struct {
	// Immutable.
	folder  *folder
	revoked *eventlog.Commit // its term is not zero once the replica was revoked
	machine *apply.Machine

	// Atomic.
	live  atomic.Pointer[eventlog.Commit] // what word has mapped; nil: nobody has followed yet
	tired atomic.Bool                     // it has applied more log than wear

	// turn holds a token, and who has taken it owns the rest.
	turn   chan struct{}
	word   word
	reader *eventlog.Reader
	failed error // why it no longer follows

	closing sync.Once
	err     error // of Close
}

// ErrReplicaClosed: the replica was closed.
var ErrReplicaClosed = errors.New("snapshot: replica closed")

// checkpointTries is how many checkpoints are made until one is still covered by
// the log once it is open. Retention lets go of what a checkpoint needs only some
// seconds later, so even the second is for a machine that is very slow.
const checkpointTries = 3

// OpenReplica makes a replica. It takes some milliseconds; what the leader has
// written since its Pebble flushed last is read from the log at the first View.
//
// The errors are those of o.Checkpoint, apply.ErrCorrupt or apply.ErrIncompatible,
// eventlog's, and what the file system said. Nothing is left on disk then.
func OpenReplica(ctx context.Context, o ReplicaOptions) (*Replica, error) {
	f, err := newFolder(ctx, o.Root)
	if err != nil {
		return nil, fmt.Errorf("make a folder for a replica: %w", err)
	}
	// Before the checkpoint is asked for and the word is mapped: see Revoke.
	revoked, err := eventlog.CreateCommit(filepath.Join(f.path, revokedName), eventlog.ID{})
	if err != nil {
		return nil, errors.Join(err, f.remove())
	}
	for range checkpointTries {
		var r *Replica
		if r, err = openCheckpoint(ctx, f, revoked, o); err == nil {
			return r, nil
		}
		if !errors.Is(err, eventlog.ErrCompacted) || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, revoked.Close(), f.remove())
}

// openCheckpoint gets a checkpoint into f and opens it.
func openCheckpoint(ctx context.Context, f *folder, revoked *eventlog.Commit, o ReplicaOptions) (_ *Replica, err error) {
	path, err := o.Checkpoint(ctx, filepath.Base(f.path))
	if err != nil {
		return nil, fmt.Errorf("get a checkpoint: %w", err)
	}
	r := &Replica{folder: f, revoked: revoked, turn: make(chan struct{}, 1), word: word{path: o.Commit}}
	if r.machine, err = apply.OpenFollower(path, o.Pebble, o.Logger); err != nil {
		return nil, err
	}
	r.reader, err = eventlog.OpenReader(o.Pebble.FS, o.Log, r.machine.Applied()+1)
	if err != nil {
		return nil, errors.Join(err, r.machine.Close(false))
	}
	if err := r.machine.Join(r.reader.ID()); err != nil {
		return nil, errors.Join(err, r.machine.Close(false), r.reader.Close())
	}
	r.turn <- struct{}{}
	return r, nil
}

// View returns the state as of a moment between call and return, and not before
// sequence number seen: every write that anybody was told of before the call is
// in it. It reads what the replica lacks from the log. The caller closes it
// before the replica.
//
// The error is that of ctx, ErrReplicaClosed, or why the replica cannot follow
// the log any more: eventlog.ErrCompacted when it has fallen so far behind that
// the log no longer has what it needs. Views that exist are not affected.
func (r *Replica) View(ctx context.Context, seen uint64) (*apply.View, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	type result struct {
		view *apply.View
		err  error
	}
	done, left := make(chan result), make(chan struct{})
	// In a goroutine of its own, for Pebble may make it wait, for good if it breaks.
	go func() {
		var got result
		if got.err = r.follow(seen); got.err == nil {
			got.view = r.machine.View()
		}
		select {
		case done <- got:
		case <-left:
			if got.view != nil {
				got.view.Close() // nobody wants it any more
			}
		}
		r.turn <- struct{}{}
	}()
	select {
	case got := <-done:
		return got.view, got.err
	case <-ctx.Done():
		close(left)
		return nil, ctx.Err()
	case <-r.machine.Failed():
		close(left)
		return nil, r.machine.Err()
	}
}

func (r *Replica) take(ctx context.Context) error {
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.machine.Failed():
		return r.machine.Err()
	}
}

// follow brings the state up to what is committed. The caller has the turn.
//
// What orders the answer behind every write that was acknowledged: the leader
// advances the word before it tells anybody, and the word is loaded here, after
// the call began. So the state has all that was acknowledged by then. It has
// nothing that could be lost again but to a power cut, which ends this process
// too: the word stands for entries that are in the log's files, as durable as
// their writers asked.
func (r *Replica) follow(seen uint64) error {
	if r.failed != nil {
		return r.failed
	}
	committed, err := r.word.load(r.machine.ID())
	if err != nil {
		return fmt.Errorf("read the commit word: %w", err)
	}
	r.live.Store(r.word.commit)
	if r.isRevoked() { // after the word was loaded: what it says may be of the log that is there now
		r.failed = ErrRevoked
		return r.failed
	}
	upTo := max(committed, seen)
	if upTo <= r.machine.Applied() {
		return nil
	}
	if err := r.machine.Follow(r.reader, upTo); err != nil {
		r.failed = fmt.Errorf("follow the log from %d to %d: %w", r.machine.Applied()+1, upTo, err)
		return r.failed
	}
	if r.reader.Passed() > wear {
		r.tired.Store(true)
	}
	return nil
}

// Applied returns the sequence number up to which the replica has followed.
func (r *Replica) Applied() uint64 { return r.machine.Applied() }

const (
	// wear is how much log a replica applies before a new one is cheaper than to
	// go on, in bytes: it flushes what it applies a second time, and never compacts.
	wear = 64 << 20
	// near is how many sequence numbers behind it may be without a look at how
	// many bytes that is.
	near = 1024
)

// Worn tells that the replica should be replaced by a new one: it has applied a
// lot, or would have to, or it cannot follow any more. It waits for a View that is
// being made; when ctx ends first the answer is false.
func (r *Replica) Worn(ctx context.Context) bool {
	if err := r.take(ctx); err != nil {
		return ctx.Err() == nil
	}
	defer func() { r.turn <- struct{}{} }()
	if r.failed != nil || r.isRevoked() || r.reader.Passed() > wear {
		return true
	}
	committed, err := r.word.load(r.machine.ID())
	if err != nil || committed < r.machine.Applied()+near {
		return err != nil
	}
	behind, err := r.reader.Behind()
	return err != nil || r.reader.Passed()+behind > wear
}

// stuckFor is how long Close waits for a goroutine in a Pebble that broke.
const stuckFor = time.Second

// Close closes the copy and removes it from the disk. The Views must be closed.
// It waits for a View that is being made.
func (r *Replica) Close() error {
	r.closing.Do(func() { r.err = r.close() })
	return r.err
}

func (r *Replica) close() error {
	var errs []error
	select {
	case <-r.turn:
	case <-r.machine.Failed():
		select {
		case <-r.turn:
		case <-time.After(stuckFor):
			// A goroutine is in that Pebble for good, and has the reader.
			return errors.Join(r.revoked.Close(), r.machine.Close(false), r.folder.remove())
		}
	}
	r.failed = ErrReplicaClosed
	r.word.close()
	errs = append(errs, r.revoked.Close(), r.reader.Close(), r.machine.Close(false))
	r.turn <- struct{}{}
	return errors.Join(append(errs, r.folder.remove())...)
}
