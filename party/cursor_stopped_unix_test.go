//go:build unix

package party_test

import (
	"context"
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

// A note of how far a quiet subscription has come goes to the leader. While that is
// stopped the note waits, and nobody who ends the subscription waits for it.
func TestSubscription_EndsWhileItsNoteWaitsForAStoppedLeader(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(cancel context.CancelFunc, s *party.Subscription, db *party.DB) error
		next error // of the Next that is under way
	}{
		{"Close", func(_ context.CancelFunc, s *party.Subscription, _ *party.DB) error { return s.Close() }, party.ErrClosed},
		{"DB.Close", func(_ context.CancelFunc, _ *party.Subscription, db *party.DB) error { return db.Close() }, party.ErrClosed},
		{"context", func(cancel context.CancelFunc, _ *party.Subscription, _ *party.DB) error { cancel(); return nil }, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := newDir(t)
			leader := start(t, config{Dir: dir})
			db := open(t, dir, nil)
			s, err := db.Subscribe(within(t), &party.SubscribeOptions{Name: "quiet", LowerBound: []byte("k"), UpperBound: []byte("l")})
			must(t, err)
			seq := applyBatch(t, db, "Set x=1")
			ctx, cancel := context.WithCancel(context.Background()) // no deadline: that would end the note too
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := s.Next(ctx)
				ended <- err
			}()
			leader.stop()
			until(t, "the note is under way", func() bool { s.Note(seq); return s.Noting() })
			done := make(chan error, 1)
			go func() { done <- tc.end(cancel, s, db) }()
			must(t, receive(t, tc.name+" while the leader is stopped", done))
			want(t, receive(t, "Next to end while the leader is stopped", ended), tc.next)
			must(t, s.Close())
			leader.cont()

			// Whether the note came about or not, the next owner gets what comes behind it.
			other := open(t, dir, nil)
			next, err := other.Subscribe(within(t), &party.SubscribeOptions{Name: "quiet", LowerBound: []byte("k"), UpperBound: []byte("l")})
			must(t, err)
			defer func() { must(t, next.Close()) }()
			seq = applyBatch(t, other, "Set k=1")
			ev, err := next.Next(within(t))
			must(t, err)
			if ev.Seq != seq {
				t.Errorf("event %d, want %d", ev.Seq, seq)
			}
		})
	}
}
