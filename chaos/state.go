package chaos

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// At the end every process that is to close reports a sum over all that its own copy of the state
// has, and the sequence number that it is at. Run compares that with a replay of
// the log that shares no code with the database's own: a Pebble that gets the
// operations one after the other.

const (
	stateWork = "state" // the name that stands for it in calls, where those of workloads stand
	opState   = "state" // Output: a stateSum
)

// stateSum is the state at one sequence number: how many keys, and a SHA-256 over
// all keys and values in their order.
type stateSum struct {
	seq  uint64
	keys int
	sum  string
}

func (s stateSum) String() string { return fmt.Sprintf("%d %d %s", s.seq, s.keys, s.sum) }

func parseStateSum(text string) (s stateSum, err error) {
	_, err = fmt.Sscanf(text, "%d %d %s", &s.seq, &s.keys, &s.sum)
	return s, err
}

// sumUp sums up the pairs of the state at seq.
func sumUp(seq uint64, pairs iter.Seq2[[]byte, []byte]) stateSum {
	s, h := stateSum{seq: seq}, sha256.New()
	for k, v := range pairs {
		s.keys++
		addString(h, k)
		addString(h, v)
	}
	s.sum = hex.EncodeToString(h.Sum(nil)[:16])
	return s
}

func addString(h hash.Hash, b []byte) {
	h.Write(binary.AppendUvarint(nil, uint64(len(b))))
	h.Write(b)
}

// reportState records the state of this process's own replica.
func (w *worker) reportState(ctx context.Context) error {
	l := &Lane{DB: w.db, workload: stateWork, out: w.out, timeout: w.Timeout, ID: fmt.Sprintf("%s-%d-%d", stateWork, w.Place, w.N)}
	return l.Do(ctx, Op{Name: opState}, func(ctx context.Context) (string, error) {
		snap, err := w.db.NewSnapshot(ctx)
		if err != nil {
			return "", err
		}
		it, err := snap.NewIter(ctx, nil)
		if err != nil {
			return "", errors.Join(err, snap.Close())
		}
		s := sumUp(snap.Seq(), it.All())
		return s.String(), errors.Join(it.Close(), snap.Close())
	})
}

// judgeStates compares what processes reported, and what db has now, with a replay
// of the log. Nobody else has db open, and nobody writes.
func (c *conductor) judgeStates(ctx context.Context, db *party.DB, h *history) Verdict {
	v := Verdict{Name: stateWork}
	v.fail(c.replay(ctx, db, h, &v))
	return v
}

// fail takes note of an error that kept a check from its end.
func (v *Verdict) fail(err error) {
	switch {
	case errors.Is(err, party.ErrCompacted):
		v.Undecided = fmt.Sprintf("the log is not whole any more: %v", err)
	case err != nil:
		v.violate(err.Error())
	}
}

// claim is what somebody says that the state is.
type claim struct {
	stateSum
	by string
}

func (c *conductor) replay(ctx context.Context, db *party.DB, h *history, v *Verdict) (err error) {
	var claims []claim
	for _, call := range h.calls {
		if call.Workload != stateWork || !call.OK() || slices.ContainsFunc(c.cuts, func(at int64) bool { return at > call.Start }) {
			continue // after a power cut the log may have less
		}
		s, err := parseStateSum(call.Output)
		if err != nil {
			return fmt.Errorf("process %d reported the state %q: %w", call.Process, call.Output, err)
		}
		claims = append(claims, claim{s, fmt.Sprintf("the replica of process %d", call.Process)})
	}
	// The state of the last leader, which the leaders before have handed down: what
	// reads at a leader are answered from.
	st, err := db.Status(ctx)
	if err != nil {
		return err
	}
	it, err := db.NewIter(ctx, nil)
	if err != nil {
		return err
	}
	claims = append(claims, claim{sumUp(st.Committed, it.All()), "the database"})
	if err := it.Close(); err != nil {
		return err
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return cmp.Compare(a.seq, b.seq) })

	log, err := party.OpenLog(c.db, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	r, err := newReplay(filepath.Join(c.plan.Dir, "replay"), c.plan.Job.options().Pebble)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	entries := 0
	for _, s := range claims {
		n, err := r.upTo(ctx, log, s.seq)
		if err != nil {
			return err
		}
		entries += n
		want, err := r.sum(s.seq)
		if err != nil {
			return err
		}
		if want != s.stateSum {
			v.violate(fmt.Sprintf("%s is not what a replay of the log makes it: sequence number, keys and sum are %s, not %s", s.by, s.stateSum, want))
		}
	}
	v.Detail = fmt.Sprintf("%d replicas and the database are, byte for byte, what a replay of %d entries makes them", len(claims)-1, entries)
	return nil
}

// replay is a state that is made of the log alone.
type replay struct {
	dir  string
	db   *pebble.DB
	next *party.LogEntry // read from the log and not applied yet
}

// newReplay makes an empty state in dir, with the comparer and the merger of o.
func newReplay(dir string, o *pebble.Options) (*replay, error) {
	own := &pebble.Options{DisableWAL: true, Logger: silent{}}
	if o != nil {
		own.Comparer, own.Merger = o.Comparer, o.Merger
	}
	db, err := pebble.Open(dir, own)
	if err != nil {
		return nil, fmt.Errorf("open a state to replay the log in: %w", err)
	}
	return &replay{dir: dir, db: db}, nil
}

func (r *replay) close() error { return errors.Join(r.db.Close(), os.RemoveAll(r.dir)) }

// upTo applies what log has up to seq, and returns how many entries that were.
func (r *replay) upTo(ctx context.Context, log *party.LogReader, seq uint64) (entries int, err error) {
	for ctx.Err() == nil {
		if r.next == nil {
			e, err := log.Next()
			if errors.Is(err, io.EOF) {
				return entries, nil
			}
			if err != nil {
				return entries, err
			}
			r.next = &e
		}
		if r.next.Seq > seq {
			return entries, nil
		}
		if err := r.apply(r.next.Ops); err != nil {
			return entries, fmt.Errorf("replay entry %d: %w", r.next.Seq, err)
		}
		r.next = nil
		entries++
	}
	return entries, context.Cause(ctx)
}

func (r *replay) apply(ops []party.Op) error {
	for _, op := range ops {
		var err error
		switch op.Kind {
		case party.OpSet:
			err = r.db.Set(op.Key, op.Value, pebble.NoSync)
		case party.OpMerge:
			err = r.db.Merge(op.Key, op.Value, pebble.NoSync)
		case party.OpDelete, party.OpSingleDelete:
			err = r.db.Delete(op.Key, pebble.NoSync)
		case party.OpDeleteRange:
			err = r.db.DeleteRange(op.Key, op.End, pebble.NoSync)
		default:
			err = fmt.Errorf("operation %s is unknown", op.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sum sums up the state, which is at seq.
func (r *replay) sum(seq uint64) (_ stateSum, err error) {
	it, err := r.db.NewIter(nil)
	if err != nil {
		return stateSum{}, err
	}
	s := sumUp(seq, func(yield func(k, v []byte) bool) {
		for ok := it.First(); ok && yield(it.Key(), it.Value()); ok = it.Next() {
		}
	})
	return s, it.Close()
}

// silent is a Pebble that says nothing.
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
