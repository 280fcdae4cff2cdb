package party_test

import (
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

// inEveryRole runs f against a leader, a follower, and a handle that followed
// until its leader, another process, was killed; those that follow with local reads
// too.
func inEveryRole(t *testing.T, f func(t *testing.T, db *party.DB)) {
	opts := config{Sum: true}.options()
	local := config{Sum: true, Local: true}.options()
	askingTheLeader(t, f)
	t.Run("local reads", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		leads(t, open(t, dir, opts))
		db := open(t, dir, local)
		readsLocally(t, db)
		f(t, db)
		readsLocally(t, db)
	})
	t.Run("local reads after failover", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		old := start(t, config{Dir: dir, Sum: true})
		dbs := []*party.DB{open(t, dir, local), open(t, dir, local)}
		for _, db := range dbs {
			readsLocally(t, db)
		}
		old.kill()
		db := follower(t, dbs...)
		f(t, db)
		readsLocally(t, db)
	})
}

// askingTheLeader is inEveryRole without local reads.
func askingTheLeader(t *testing.T, f func(t *testing.T, db *party.DB)) {
	opts := config{Sum: true}.options()
	t.Run("leader", func(t *testing.T) {
		db := open(t, newDirFor(t, opts.Pebble), opts)
		leads(t, db)
		f(t, db)
	})
	t.Run("follower", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		leads(t, open(t, dir, opts))
		db := open(t, dir, opts)
		hasRole(t, db, party.Following)
		f(t, db)
	})
	t.Run("follower of another process", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		start(t, config{Dir: dir, Sum: true})
		db := open(t, dir, opts)
		hasRole(t, db, party.Following)
		f(t, db)
	})
	t.Run("after failover", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		p := start(t, config{Dir: dir, Sum: true})
		db := open(t, dir, opts)
		hasRole(t, db, party.Following)
		p.kill()
		f(t, db)
		leads(t, db)
	})
	t.Run("follower after failover", func(t *testing.T) {
		dir := newDirFor(t, opts.Pebble)
		old := start(t, config{Dir: dir, Sum: true})
		dbs := []*party.DB{open(t, dir, opts), open(t, dir, opts)}
		old.kill()
		f(t, follower(t, dbs...))
	})
}

// follower returns the one of dbs that follows, once the other leads and answers.
func follower(t *testing.T, dbs ...*party.DB) (found *party.DB) {
	t.Helper()
	until(t, "one of the handles follows", func() bool {
		for _, db := range dbs {
			s, err := db.Status(within(t))
			must(t, err)
			if s.Responding && s.Role == party.Following {
				found = db
				return true
			}
		}
		return false
	})
	return found
}
