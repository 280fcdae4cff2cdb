package party

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Internal: the keeper looks after the files once a second, here all the time. It does
// not put the endpoint back that the end of the term removes.
func TestLeader_LeavesNoEndpoint(t *testing.T) {
	for range 30 {
		_, db := openHere(t, t.TempDir())
		l := db.leading.Load()
		late := make(chan struct{})
		l.work.Go(func() {
			for l.ctx.Err() == nil {
				l.stayVisible()
			}
		})
		go func() {
			<-l.ended
			l.stayVisible() // one that was stuck, and given up, while the term ended
			close(late)
		}()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		<-late
		if _, err := os.Stat(db.path("endpoint")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the endpoint is still there: %v", err)
		}
	}
}

// What a term began with and had to replay is flushed like what it writes, though
// nobody writes more: or the next leader would have to replay it again.
func TestKeeper_FlushesWhatWasReplayed(t *testing.T) {
	ctx, db := openHere(t, t.TempDir())
	next := func(old *leader) *leader {
		old.cancel(errors.New("the test ends the term"))
		for {
			if l := db.leading.Load(); l != nil && l != old {
				return l
			}
			if err := ctx.Err(); err != nil {
				t.Fatal("nobody leads: ", err)
			}
			pause(ctx, time.Millisecond)
		}
	}
	put := func(n int) {
		for i := range n {
			if err := db.Set(ctx, fmt.Appendf(nil, "k%d", i), make([]byte, 20<<10), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(1)
	l := next(db.leading.Load()) // this term leaves a gap of numbers behind what Pebble has
	put(20)
	l = next(l)
	for last := l.log.Last(); ; pause(ctx, 10*time.Millisecond) {
		durable, err := l.machine.Durable()
		if err != nil || ctx.Err() != nil {
			t.Fatalf("Pebble has %d of %d, %v", durable, last, errors.Join(err, ctx.Err()))
		}
		if durable >= last {
			break
		}
	}
}
