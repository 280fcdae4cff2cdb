package party_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// TestIterator_OutlivesLeadersKilledAllTheTime: whole walks in both directions,
// in tight and slow loops, while the leader is killed every 100 milliseconds and
// keys are written and deleted between those that stay.
func TestIterator_OutlivesLeadersKilledAllTheTime(t *testing.T) {
	keys := 100_000
	if testing.Short() || raceEnabled {
		keys = 10_000
	}
	dir := newDir(t)
	children := make(map[int]*process)
	more := func() {
		p := launch(t, config{Dir: dir})
		children[p.pid] = p
	}
	for range 3 {
		p := start(t, config{Dir: dir})
		children[p.pid] = p
	}
	db := open(t, dir, nil)
	for i := 0; i < keys; i += 1000 {
		var b pebble.Batch
		for j := i; j < i+1000; j++ {
			must(t, b.Set(iterKey(j), fmt.Appendf(nil, "%0100d", j), nil))
		}
		_, err := db.Apply(within(t), &b, pebble.NoSync)
		must(t, err)
	}
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	writer := make(chan error, 1)
	go func() { writer <- between(ctx, db, keys) }()

	for _, x := range []struct {
		name    string
		reverse bool
		every   int // keys between pauses; 0: none
		kills   int
	}{
		{"forwards", false, 0, 6}, {"backwards", true, 0, 6},
		{"slowly forwards", false, keys / 40, 3}, {"slowly backwards", true, keys / 40, 3},
	} {
		t.Run(x.name, func(t *testing.T) {
			done := make(chan error, 1)
			enough := make(chan struct{})
			finish := sync.OnceFunc(func() { close(enough) })
			walks := 0
			go func() {
				for {
					if err := walkWhole(ctx, db, keys, x.reverse, x.every); err != nil {
						done <- err
						return
					}
					walks++
					select {
					case <-enough:
						done <- nil
						return
					default:
					}
				}
			}()
			kills, resigned := 0, 0
			for tick := time.NewTicker(100 * time.Millisecond); ; {
				select {
				case err := <-done:
					tick.Stop()
					must(t, err)
					t.Logf("%d walks, %d leaders killed, %d resigned", walks, kills, resigned)
					return
				case <-tick.C:
				}
				if kills >= x.kills {
					// On a slow machine a leader that lives for 100 ms serves little: the
					// last walk would take for ever.
					finish()
					continue
				}
				s, err := db.Status(ctx)
				must(t, err)
				switch p := children[s.LeaderPID]; {
				case !s.Responding:
				case s.Role == party.Leading:
					must(t, db.Resign(ctx))
					resigned++
				case p != nil:
					delete(children, p.pid)
					p.kill()
					more()
					kills++
				}
			}
		})
	}
	stop()
	want(t, receive(t, "the writer", writer), context.Canceled)
}

// between writes and deletes keys between those that stay, until ctx ends.
func between(ctx context.Context, db *party.DB, keys int) error {
	for i := 0; ; i++ {
		var b pebble.Batch
		_ = b.Set(append(iterKey(i*7919%keys), 'x'), []byte("between"), nil)
		_ = b.Delete(append(iterKey(i*104729%keys), 'x'), nil)
		if _, err := db.Apply(ctx, &b, pebble.NoSync); err != nil {
			return err
		}
	}
}

// walkWhole walks over all keys and checks those that stay.
func walkWhole(ctx context.Context, db *party.DB, keys int, reverse bool, every int) error {
	it, err := db.NewIter(ctx, nil)
	if err != nil {
		return err
	}
	n := 0
	loop := it.All()
	if reverse {
		loop = it.Backward()
	}
	for k, v := range loop {
		if k[len(k)-1] == 'x' {
			continue
		}
		i := n
		if reverse {
			i = keys - 1 - n
		}
		if !bytes.Equal(k, iterKey(i)) || !bytes.Equal(v, fmt.Appendf(nil, "%0100d", i)) {
			return fmt.Errorf("at %q, want %q", k, iterKey(i))
		}
		if n++; every > 0 && n%every == 0 {
			<-time.After(10 * time.Millisecond) // a slow body
		}
	}
	if err := it.Close(); err != nil {
		return err
	}
	if n != keys {
		return fmt.Errorf("%d keys, want %d", n, keys)
	}
	return nil
}
