//go:build unix

package party_test

import (
	"bytes"
	"testing"

	"github.com/pebbleparty/pebbleparty/party"
)

// TestIterator_LeaderLostWhileWaiting: an iterator that waits for a page when its
// leader dies goes on with the next one, or says so: with NoRetry, until it is
// positioned anew, and with Strict.
func TestIterator_LeaderLostWhileWaiting(t *testing.T) {
	for _, x := range []struct {
		name            string
		noRetry, strict bool
		err, again      error
	}{
		{name: "by default"},
		{"with NoRetry", true, false, party.ErrLeaderLost, nil},
		{"strict", false, true, party.ErrSnapshotLost, party.ErrSnapshotLost},
		{"strict with NoRetry", true, true, party.ErrLeaderLost, party.ErrSnapshotLost},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := newDir(t)
			leader := start(t, config{Dir: dir})
			db := open(t, dir, &party.Options{NoRetry: x.noRetry})
			fillIter(t, db)
			it, err := db.NewIter(within(t), &party.IterOptions{Strict: x.strict})
			must(t, err)
			if !it.Last() { // the page that NewIter fetched is of no use for this
				t.Fatal(it.Error())
			}
			leader.stop()
			moved := make(chan int, 1)
			go func() {
				n := 1
				for it.Prev() {
					n++
				}
				moved <- n
			}()
			// It may be waiting or not yet: it cannot come to the end.
			_, err = db.Status(within(t))
			must(t, err)
			leader.kill()
			n := receive(t, "the iterator to go on or fail", moved)
			want(t, it.Error(), x.err)
			if (n == iterKeys) != (x.err == nil) {
				t.Errorf("%d keys", n)
			}
			if ok := it.SeekGE(iterKey(7)); ok != (x.again == nil) || ok && !bytes.Equal(it.Key(), iterKey(7)) {
				t.Errorf("sought again: %t, %q", ok, it.Key())
			}
			want(t, it.Error(), x.again)
			want(t, it.Close(), x.again)
		})
	}
}
