package party

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/snapshot"
)

// pairOf returns two handles of one database with n keys: one leads, the other
// follows.
func pairOf(t *testing.T, n int) (ctx context.Context, lead, follow *DB) {
	t.Helper()
	ctx, cancel := context30(t)
	t.Cleanup(cancel)
	dir := t.TempDir()
	var err error
	for _, db := range []**DB{&lead, &follow} {
		if *db, err = Open(ctx, dir, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*db).Close() })
	}
	var b pebble.Batch
	for i := range n {
		_ = b.Set(numbered(i), make([]byte, 100), nil)
	}
	if _, err := follow.Apply(ctx, &b, nil); err != nil {
		t.Fatal(err)
	}
	return ctx, lead, follow
}

func numbered(i int) []byte { return fmt.Appendf(nil, "key%06d", i) }

func waitFor(t *testing.T, why string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30s in vain until %s", why)
		}
		<-time.After(time.Millisecond)
	}
}

// TestScans_IdleIsForgotten: an iterator that does not move for long is
// forgotten by the leader; then it goes on unseen, unless it is strict.
func TestScans_IdleIsForgotten(t *testing.T) {
	const keys = 3000
	ctx, lead, follow := pairOf(t, keys)
	c := lead.leading.Load().scans
	for _, reverse := range []bool{false, true} {
		for _, strict := range []bool{false, true} {
			it, err := follow.NewIter(ctx, &IterOptions{Strict: strict})
			if err != nil {
				t.Fatal(err)
			}
			move := it.Next
			if reverse {
				move = it.Prev
			}
			for range 10 {
				if !move() {
					t.Fatal(it.Error())
				}
			}
			c.sweep(time.Now().Add(time.Hour), true) // this process was stopped
			c.sweep(time.Now().Add(iterIdle/2), false)
			if c.count() != 1 {
				t.Fatalf("%d iterators held after half the time, want 1", c.count())
			}
			c.sweep(time.Now().Add(2*time.Hour), false)
			waitFor(t, "the leader has forgotten the iterator", func() bool { return c.count() == 0 })
			n := 10
			for move() {
				i := n
				if reverse {
					i = keys - 1 - n
				}
				if !bytes.Equal(it.Key(), numbered(i)) {
					t.Fatalf("at %q, want %q", it.Key(), numbered(i))
				}
				n++
			}
			err = it.Close()
			if strict && (n == keys || !errors.Is(err, ErrSnapshotLost)) {
				t.Errorf("strict, reverse %t: %d keys, %v", reverse, n, err)
			}
			if !strict && (n != keys || err != nil) {
				t.Errorf("reverse %t: %d keys, %v", reverse, n, err)
			}
			// Close does not wait for the leader to hear of it.
			waitFor(t, "closed iterators are forgotten", func() bool { return c.count() == 0 })
		}
	}
}

// TestStream_TouchesWhileItMoves: an iterator whose pages last for long tells the
// leader that it is in use, but only while it is.
func TestStream_TouchesWhileItMoves(t *testing.T) {
	ctx, lead, follow := pairOf(t, 3000)
	it, err := follow.NewIter(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	c, s := lead.leading.Load().scans, it.src.(*stream)
	used := func() time.Time {
		cur := c.find(s.inbox)
		cur.mu.Lock()
		defer cur.mu.Unlock()
		return cur.used
	}
	it.First()
	it.Next()
	before := used()
	s.touch()
	waitFor(t, "the leader has heard of the iterator", func() bool { return used().After(before) })
	before = used()
	s.touch()
	if _, err := follow.Get(ctx, []byte("k")); err != nil && !errors.Is(err, pebble.ErrNotFound) {
		t.Fatal(err) // the leader has all that was sent before
	}
	if used().After(before) {
		t.Error("an iterator that does not move said that it does")
	}
}

// TestStream_BoundsWhatIsUnderWay: of a walk that stops nothing is sent beyond the
// window, and the leader does nothing for it.
func TestStream_BoundsWhatIsUnderWay(t *testing.T) {
	const keys = 60_000
	ctx, lead, follow := pairOf(t, keys)
	it, err := follow.NewIter(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	s := it.src.(*stream)
	n := 0
	for ok := it.First(); ok && n < keys/2; ok = it.Next() {
		n++
	}
	cur := lead.leading.Load().scans.find(s.inbox)
	waitFor(t, "the leader has sent what it may", func() bool {
		cur.mu.Lock()
		defer cur.mu.Unlock()
		return !cur.busy && cur.sent >= s.allowed
	})
	if sent := cur.sent; sent != s.allowed || sent <= s.got || sent > s.got+window {
		t.Errorf("%d pages were sent, %d read, the window is %d", sent, s.got, window)
	}
	waitFor(t, "all pages have arrived", func() bool { return len(s.in) == int(s.allowed-s.got) })
	bytes := 0
	for range len(s.in) {
		m := <-s.in
		bytes += len(m.Data)
		s.in <- m
	}
	if bytes > window*(largestPage+100) {
		t.Errorf("%d bytes are under way", bytes)
	}
	for n++; it.Next(); {
		n++
	}
	if n != keys {
		t.Errorf("%d keys, %v", n, it.Error())
	}
}

// TestScans_InboxIsUsedAgain: iterators that come one after the other, in many
// goroutines, share inboxes and never see each other's pages.
func TestScans_InboxIsUsedAgain(t *testing.T) {
	const keys = 300
	ctx, lead, follow := pairOf(t, keys)
	failed := make(chan error, 8)
	for g := range cap(failed) {
		go func() {
			for i := range 100 {
				lower := (g*31 + i*7) % keys
				it, err := follow.NewIter(ctx, &IterOptions{LowerBound: numbered(lower)})
				if err != nil {
					failed <- err
					return
				}
				n := lower
				for range it.All() {
					if !bytes.Equal(it.Key(), numbered(n)) {
						failed <- fmt.Errorf("at %q, want %q", it.Key(), numbered(n))
						return
					}
					if n++; i%3 == 0 && n > lower+i%50 { // leaves with pages on their way
						break
					}
				}
				if err := it.Close(); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	c := lead.leading.Load().scans
	waitFor(t, "closed iterators are forgotten", func() bool { return c.count() == 0 })
	r := follow.mu.state.remote
	r.lines.Lock()
	defer r.lines.Unlock()
	if n := len(r.lines.free); n == 0 || n > maxFreeLines {
		t.Errorf("%d free inboxes", n)
	}
	for _, l := range r.lines.free {
		for range len(l.in) {
			if m := <-l.in; len(m.Data) > 200 { // not a late answer
				t.Errorf("%d bytes wait in an inbox that nobody uses", len(m.Data))
			}
		}
	}
}

// TestScans_EndOfTermFreesAll: what iterators hold does not keep Pebble from
// being closed, whatever they are doing.
func TestScans_EndOfTermFreesAll(t *testing.T) {
	ctx, lead, follow := pairOf(t, 3000)
	for round := range 5 {
		var open []*Iterator
		for i := range 40 {
			db := lead
			if i%2 == 1 {
				db = follow
			}
			it, err := db.NewIter(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range i * round {
				it.Next()
			}
			if i%5 == 0 {
				_ = it.Close() // the message may still be on its way
			} else {
				open = append(open, it)
			}
		}
		for _, db := range []*DB{lead, follow} {
			if err := db.Resign(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for _, it := range open {
			n := 0
			for it.Next() {
				n++
			}
			if err := it.Close(); err != nil {
				t.Fatalf("after %d keys: %v", n, err)
			}
		}
	}
	it, err := lead.NewIter(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range it.All() {
		if n++; n == 10 {
			if err := errors.Join(lead.Close(), follow.Close()); err != nil { // in the middle of a loop
				t.Fatal(err)
			}
		}
	}
	if n == 3000 || !errors.Is(it.Error(), ErrClosed) {
		t.Errorf("%d keys, %v", n, it.Error())
	}
	_ = it.Close()
	p, err := pebble.Open(lead.dir, &pebble.Options{FS: vfs.Default, ErrorIfNotExists: true, Logger: noLog{}})
	if err != nil {
		t.Fatal(err) // Close did not close Pebble
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

type noLog struct{}

func (noLog) Infof(string, ...any)           {}
func (noLog) Errorf(string, ...any)          {}
func (noLog) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func iterSeeds() [][]byte {
	seek := iterSeek{Inbox: "_INBOX.x", Walk: 1, Allowed: 2, At: snapshot.Position{From: []byte("k"), Reverse: true}}
	first := iterSeek{Inbox: "_INBOX.x", Walk: 1, Allowed: 1, Open: true, Bounds: snapshot.Bounds{Lower: []byte("a"), Upper: []byte{}, KeysOnly: true}}
	more := iterMore{Inbox: "_INBOX.x", Walk: 3, Allowed: 300}
	end := iterClose{Inbox: "_INBOX.x", Walk: 3}
	page := iterPage{Walk: 4, Index: 200, End: snapshot.Part}
	failed := iterPage{Walk: 4, Err: ErrSnapshotLost}
	return [][]byte{
		seek.append(nil), first.append(nil), more.append(nil), end.append(nil), append(page.appendHead(nil), "data"...),
		failed.appendHead(nil), append(appendHeader(nil, msgIterSeek), 0xff, 0xff, 0xff, 0xff, 0x7f), appendHeader(nil, msgIterPage),
		append(first.append(nil), 0), append(appendHeader(nil, msgIterPage), 1, 1, 9),
	}
}

// FuzzIterMessage: no message to or from an iterator makes a decoder panic, and
// what is decoded encodes to what decodes the same.
func FuzzIterMessage(f *testing.F) {
	for _, s := range iterSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := openMessage(b)
		if err != nil {
			return
		}
		again := func(encoded []byte, decode func([]byte) error, encode func() []byte) {
			t.Helper()
			if err := decode(bytes.Clone(encoded[3:])); err != nil || !bytes.Equal(encode(), encoded) {
				t.Errorf("%x does not survive a round trip: %v", encoded, err)
			}
		}
		var s iterSeek
		if s.decode(body) == nil {
			again(s.append(nil), s.decode, func() []byte { return s.append(nil) })
		}
		var m iterMore
		if m.decode(body) == nil {
			again(m.append(nil), m.decode, func() []byte { return m.append(nil) })
		}
		var c iterClose
		if c.decode(body) == nil {
			again(c.append(nil), c.decode, func() []byte { return c.append(nil) })
		}
		var p iterPage
		if p.decode(body) == nil {
			if p.Err == nil {
				again(append(p.appendHead(nil), p.Data...), p.decode, func() []byte { return append(p.appendHead(nil), p.Data...) })
			}
			if _, err := snapshot.DecodePage(nil, p.Data, false); err == nil && len(p.Data) > len(body) {
				t.Error("more data than the message has")
			}
		}
	})
}
