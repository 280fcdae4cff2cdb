package party

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// A process that wants a copy of the state makes and locks a folder for it, has
// the leader link a checkpoint into that, and needs the leader no more.
const (
	msgCheckpoint     msgType = 60 // checkpointRequest → msgCheckpointDone
	msgCheckpointDone msgType = 61
)

// checkpointRequest names the folder of a replica and the number of the attempt.
type checkpointRequest struct {
	Replica string
	N       uint64
}

func (c *checkpointRequest) append(dst []byte) []byte {
	dst = appendHeader(dst, msgCheckpoint)
	dst = appendBytes(dst, []byte(c.Replica))
	return binary.AppendUvarint(dst, c.N)
}

func (c *checkpointRequest) decode(b []byte) error {
	r := reader{b: b}
	c.Replica, c.N = string(r.bytes()), r.uvarint()
	return r.err()
}

// checkpoint answers a request. It works in a goroutine of its own: the desk's
// workers have reads to answer.
func (d *desk) checkpoint(m *nats.Msg, body []byte) {
	d.l.work.Go(func() {
		var c checkpointRequest
		err := c.decode(body)
		if err == nil {
			err = termOver(d.l.checkpoint(d.l.ctx, &c))
		}
		switch {
		case errors.Is(err, errLost): // the connection ends in a moment, and it is asked for again
		case err != nil:
			d.reply(m, appendError(appendHeader(nil, msgError), err))
		default:
			d.reply(m, appendHeader(nil, msgCheckpointDone))
		}
	})
}

// checkpoint makes one in the folder of a replica. Once the state is up to the log it
// takes no notice of ctx.
func (l *leader) checkpoint(ctx context.Context, c *checkpointRequest) error {
	if !l.gate.enter() {
		return errLost
	}
	defer l.gate.exit()
	path, err := snapshot.CheckpointPath(l.db.path("replicas"), c.Replica, c.N)
	if err != nil {
		return err
	}
	if err := checkRoom(l.db.dir, l.db.opts.Pebble.FS); err != nil {
		return err
	}
	if err := l.current(ctx); err != nil {
		return err
	}
	durable, err := l.machine.Durable()
	if err != nil {
		return err
	}
	held := l.holds.begin(durable)
	err = l.machine.Checkpoint(path)
	l.holds.done(held, time.Now())
	if errors.Is(err, apply.ErrStopped) {
		return errLost // if nobody waits for it, the next leader removes what may be left
	}
	if err := snapshot.Reclaim(l.db.path("replicas"), c.Replica); err != nil {
		l.db.log.Warn("party: a checkpoint that nobody waits for", "err", err)
	}
	if err != nil {
		return fmt.Errorf("make a checkpoint: %w", err)
	}
	return nil
}

// holdFor is how long the log from a checkpoint on is kept, once that is made, for
// the replica that is to read it. One that is slower than that gets another checkpoint.
const holdFor = 3 * time.Second

// holds keep retention from the log that replicas which are being opened need.
type holds struct {
	mu   sync.Mutex
	list []*hold
}

type hold struct {
	seq   uint64    // what comes behind it is kept
	until time.Time // zero while the checkpoint is being made, which on a slow disk takes as long as it takes
}

// begin holds what comes behind seq until some time after done.
func (h *holds) begin(seq uint64) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := &hold{seq: seq}
	h.list = append(h.list, held)
	return held
}

// done says that the checkpoint is there, or that there will be none.
func (h *holds) done(held *hold, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held.until = now.Add(holdFor)
}

// keep lowers durable, up to which the log could go, to what is held.
func (h *holds) keep(durable uint64, now time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = slices.DeleteFunc(h.list, func(held *hold) bool { return !held.until.IsZero() && now.After(held.until) })
	for _, held := range h.list {
		durable = min(durable, held.seq)
	}
	return durable
}

// sweepEvery is how long the replica of a process that was killed stays, at most,
// while there is a leader.
const sweepEvery = time.Minute

// sweep removes what processes that were killed have left, beside everything
// else: nobody waits for it.
func (l *leader) sweep() {
	_ = l.db.opts.Pebble.FS.Remove(l.db.path("probe")) // of one who was killed in the middle
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		n, err := snapshot.Sweep(l.ctx, l.db.path("replicas"))
		if n > 0 {
			l.db.log.Info("party: removed the replicas of processes that are gone", "count", n)
		}
		if err != nil {
			l.db.log.Warn("party: remove the replicas of processes that are gone", "err", err)
		}
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// getCheckpoint has whoever leads make a checkpoint for a replica of this process
// and returns where it is.
func (db *DB) getCheckpoint(ctx context.Context, replica string) (path string, err error) {
	if err := checkRoom(db.dir, db.opts.Pebble.FS); err != nil {
		return "", err // nor could it be opened
	}
	for {
		s, err := db.route(ctx)
		if err != nil {
			return "", err
		}
		// A leader that was lost may still be at work on the last one.
		c := checkpointRequest{Replica: replica, N: db.checkpoints.Add(1)}
		path, err := snapshot.CheckpointPath(db.path("replicas"), replica, c.N)
		if err != nil {
			return "", err
		}
		if s.leader != nil {
			err = s.leader.checkpoint(ctx, &c)
		} else {
			var t msgType
			if t, _, err = s.remote.ask(ctx, c.append(nil)); err == nil && t != msgCheckpointDone {
				err = fmt.Errorf("%w: reply type %d to a checkpoint request", errWire, t)
			}
		}
		if err == nil {
			_, err = os.Stat(path)
			return path, err
		}
		switch {
		case errors.Is(err, errGone):
		case !errors.Is(err, errLost):
			return "", err
		case db.opts.NoRetry:
			return "", ErrLeaderLost
		default:
			if err := db.leave(ctx, s); err != nil {
				return "", err
			}
		}
	}
}
