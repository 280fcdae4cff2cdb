package party

import (
	"context"
	"errors"
)

// committed returns up to where the log is committed, as far as this process
// knows without asking: with a leader that it can hear, all of it.
func (db *DB) committed() uint64 {
	if l := db.leading.Load(); l != nil {
		db.learn(l.word.Committed())
		return db.known.Load()
	}
	db.mu.Lock()
	r := db.mu.state.remote
	db.mu.Unlock()
	if r != nil {
		return r.committed()
	}
	return db.known.Load()
}

// askCommitted returns up to where the log is committed at some moment after the
// call.
func (db *DB) askCommitted(ctx context.Context) (uint64, error) {
	for {
		s, err := db.route(ctx)
		if err != nil {
			return 0, db.explain(err)
		}
		st, err := db.askStatus(ctx, s)
		if errors.Is(err, errLost) {
			err = db.leave(ctx, s)
			if err == nil {
				continue
			}
		}
		return st.Committed, db.explain(err)
	}
}

// learn notes that everything up to seq is committed.
func (db *DB) learn(seq uint64) {
	for {
		k := db.known.Load()
		if seq <= k || db.known.CompareAndSwap(k, seq) {
			return
		}
	}
}
