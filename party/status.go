package party

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// Status is what a handle knows of itself and of the leader.
type Status struct {
	Role      Role
	LeaderPID int    // 0 if unknown
	Term      uint64 // of the leader
	Committed uint64 // sequence number up to which the log is committed
	Applied   uint64 // the same, up to which the leader's state is: a write is applied while its answer travels, or some time later as a term begins; 0 if the leader does not answer, or has not opened Pebble yet
	FirstSeq  uint64 // first sequence number that is still in the log; 0 if the leader does not answer
	// Responding: the leader has answered. If not, the other fields are what its
	// files say. A leader that is stopped (SIGSTOP) keeps its lock, so nobody can
	// take over until it goes on or dies.
	Responding bool
	Database   string // identity of the database, in hexadecimal
	Followers  int    // connections to the leader
	// Cursors are the named subscriptions, in the order of their names; nil if the
	// leader does not answer.
	Cursors []CursorStatus
	// LocalReads: this handle answers reads from its own replica now (see
	// Options.LocalReads), which has applied the log up to LocalApplied. Every read
	// brings it up to Committed first; one that nobody reads stays behind.
	LocalReads   bool
	LocalApplied uint64
	Iterators    int // open iterators of all processes that the leader holds a point in time for
}

// statusPatience is how long Status waits for a leader.
const statusPatience = time.Second

// Status asks the leader how it is. It blocks for a second at most: a leader
// that has not answered by then is reported as not Responding, which is no error.
func (db *DB) Status(ctx context.Context) (Status, error) {
	st, err := db.status(ctx)
	if err == nil {
		db.local.status(&st)
	}
	return st, err
}

func (db *DB) status(ctx context.Context) (Status, error) {
	limited, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	for {
		s, err := db.route(limited)
		if errors.Is(err, ErrClosed) {
			return Status{}, err
		}
		if err != nil {
			return db.statusFromFiles(ctx, err)
		}
		st, err := db.askStatus(limited, s)
		if err == nil {
			st.Cursors, err = db.cursorStatus(limited)
		}
		if err == nil {
			return st, nil
		}
		if errors.Is(err, errLost) {
			err = db.leave(limited, s)
		}
		if err != nil {
			return db.statusFromFiles(ctx, err)
		}
	}
}

func (db *DB) askStatus(ctx context.Context, s state) (Status, error) {
	var ls leaderStatus
	st := Status{Role: s.role, Responding: true}
	if l := s.leader; l != nil {
		if !l.gate.enter() {
			return Status{}, errLost
		}
		ls, st.Database = l.status(), l.log.ID().String()
		l.gate.exit()
	} else {
		t, body, err := s.remote.ask(ctx, appendHeader(nil, msgStatus))
		if err == nil && t != msgStatusReply {
			err = errWire
		}
		if err == nil {
			err = ls.decode(body)
		}
		if err != nil {
			return Status{}, err
		}
		st.Database = s.remote.database.String()
	}
	st.Term, st.LeaderPID, st.Committed = ls.Term, int(ls.PID), ls.Committed
	st.Applied, st.FirstSeq, st.Followers = ls.Applied, ls.FirstSeq, int(ls.Followers)
	st.Iterators = int(ls.Iterators)
	return st, nil
}

// statusFromFiles is what can be said while no leader answers.
func (db *DB) statusFromFiles(ctx context.Context, cause error) (Status, error) {
	if err := ctx.Err(); err != nil {
		return Status{}, db.explain(err)
	}
	if errors.Is(cause, ErrClosed) {
		return Status{}, cause
	}
	db.mu.Lock()
	st := Status{Role: db.mu.state.role}
	db.mu.Unlock()
	if e, err := readEndpoint(db.dir); err == nil {
		st.LeaderPID, st.Term, st.Database = e.PID, e.Term, e.Database
	}
	if w, err := eventlog.ReadCommit(db.path("commit")); err == nil {
		st.Term, st.Committed = w.Term(), w.Committed()
		if err := w.Close(); err != nil {
			return st, err
		}
	}
	return st, nil
}

// leaderStatus is the leader's reply to msgStatus.
type leaderStatus struct {
	Term, PID, Committed, Applied, FirstSeq, Followers, Iterators uint64
}

func (s *leaderStatus) append(dst []byte) []byte {
	dst = appendHeader(dst, msgStatusReply)
	for _, v := range []uint64{s.Term, s.PID, s.Committed, s.Applied, s.FirstSeq, s.Followers, s.Iterators} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func (s *leaderStatus) decode(b []byte) error {
	r := reader{b: b}
	for _, v := range []*uint64{&s.Term, &s.PID, &s.Committed, &s.Applied, &s.FirstSeq, &s.Followers, &s.Iterators} {
		*v = r.uvarint()
	}
	return r.err()
}
