package party

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Internal: the leader's list is emptied without an answer, as if that had been lost on
// its way. The subscription asks again, and has the event.
func TestSubscriptions_AskAgainWhenAnAnswerIsLost(t *testing.T) {
	dir := t.TempDir()
	_, leader := openHere(t, dir)
	ctx, follower := openHere(t, dir)
	follower.subscriptions.patience = 100 * time.Millisecond
	sub, err := follower.Subscribe(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	got := make(chan error, 1)
	go func() {
		for {
			e, err := sub.Next(ctx)
			if err != nil || len(e.Ops) > 0 && string(e.Ops[0].Key) == "k" {
				got <- err
				return
			}
		}
	}()
	n := leader.leading.Load().notifier
	lost := 0
	for lost < 3 { // the request, and that it is sent again
		n.mu.Lock()
		for who := range n.list {
			n.remove(who)
			lost++
		}
		n.mu.Unlock()
		select {
		case err := <-got:
			t.Fatalf("an event, or %v, before there is one", err)
		case <-ctx.Done():
			t.Fatal("nobody asks again")
		case <-time.After(time.Millisecond):
		}
	}
	if err := leader.Set(ctx, []byte("k"), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}
