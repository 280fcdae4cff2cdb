package party

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestReadRoom_BoundsAReply(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		sizes []int
		want  string // p present, L large, l later
	}{
		"small ones":                 {[]int{1, 2, 3}, "ppp"},
		"one of any size":            {[]int{200 * mb, 10}, "pp"},
		"and those that fit":         {[]int{10, 2 * mb, mb - 10}, "ppp"},
		"small behind large":         {[]int{2 * mb, 2 * mb, 1, 2 * mb, 1}, "pLpLp"},
		"full of small ones":         {[]int{mb, 10, 10, 10}, "ppll"},
		"too much to look up at all": {[]int{mb + 1, passBytes, 1}, "pLl"},
	} {
		t.Run(name, func(t *testing.T) {
			var room readRoom
			got := ""
			for _, size := range c.sizes {
				mark := valueLater
				if !room.full {
					mark = room.take(size)
				}
				got += map[valueMark]string{valuePresent: "p", valueLarge: "L", valueLater: "l"}[mark]
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// sizedRoute answers reads as a leader does, out of a state where the value of a
// key is as long as the key says, and notes what it sends.
type sizedRoute struct {
	t       *testing.T
	bundles int
	largest int
	at      map[string]int // in which bundle a key was answered
}

func (r *sizedRoute) send(int, []*call) {}

func (r *sizedRoute) wait(_ context.Context, _ int, bundle []*call) error {
	_, keys, err := decodeKeys(encodeReads(nil, 1, bundle)[3:])
	if err != nil {
		r.t.Error(err)
	}
	out := binary.AppendUvarint(binary.AppendUvarint(nil, 1), uint64(len(keys)))
	var room readRoom
	for _, k := range keys {
		var size int
		if _, err := fmt.Sscan(string(bytes.TrimLeft(k, "abcdefghijklmnopqrstuvwxyz")), &size); err != nil {
			r.t.Error(err)
		}
		mark := valueLater
		if !room.full {
			mark = room.take(size)
		}
		if out = append(out, byte(mark)); mark == valuePresent {
			out = appendBytes(out, make([]byte, size))
			r.at[string(k)] = r.bundles
		}
	}
	r.bundles++
	r.largest = max(r.largest, len(out))
	_, values, err := decodeValues(out)
	if err != nil {
		r.t.Error(err)
	}
	return fill(bundle, values, len(out))
}

// stuckRoute takes a bundle and does not answer before it is let go.
type stuckRoute struct {
	sent    chan []*call
	release chan struct{}
}

func (r *stuckRoute) send(_ int, bundle []*call) { r.sent <- bundle }

func (r *stuckRoute) wait(ctx context.Context, _ int, _ []*call) error {
	select {
	case <-ctx.Done():
		return errLeft
	case <-r.release:
		return errNotReplayed // any error answers
	}
}

// TestDB_KeysOfAReadStayTheCallers: when its context ends, a read returns although its bundle
// may have to be encoded, or encoded again. The caller may then do with its keys what it likes.
func TestDB_KeysOfAReadStayTheCallers(t *testing.T) {
	r := &stuckRoute{sent: make(chan []*call, 1), release: make(chan struct{})}
	db := &DB{reads: newLane(1, false), local: &local{}}
	db.reads.setRoute(r)
	defer db.reads.left.Wait()
	defer close(r.release)
	ctx, leave := context.WithCancel(t.Context())
	keys := [][]byte{[]byte("one"), {}, []byte("three")}
	ended := make(chan error)
	go func() {
		_, err := db.GetMany(ctx, keys)
		ended <- err
	}()
	bundle := <-r.sent
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a read whose context ended: %v", err)
	}
	copy(keys[0], "TWO")
	keys[2] = nil
	if got := fmt.Sprintf("%q", bundle[0].keys); got != `["one" "" "three"]` {
		t.Errorf("the bundle asks for %s", got)
	}
}

// TestLane_SmallReadsPassLargeOnes: no reply is much larger than the largest
// value, every read gets all its values, and a small one does not wait for all
// the large ones that came before it.
func TestLane_SmallReadsPassLargeOnes(t *testing.T) {
	const large, size = 100, 2 << 20
	l := newLane(1, false)
	ctx, cancel := context30(t)
	defer cancel()
	var callers sync.WaitGroup
	read := func(keys ...string) {
		c := &call{size: 32}
		for _, k := range keys {
			c.keys = append(c.keys, []byte(k))
		}
		l.mu.Lock()
		queued := len(l.queue)
		l.mu.Unlock()
		callers.Go(func() {
			if err := l.do(ctx, c); err != nil {
				t.Error(err)
			}
			for i, k := range keys {
				var n int
				_, _ = fmt.Sscan(string(bytes.TrimLeft([]byte(k), "abcdefghijklmnopqrstuvwxyz")), &n)
				if len(c.values) != len(keys) || len(c.values[i]) != n {
					t.Errorf("%s: %d values", k, len(c.values))
				}
			}
		})
		for n := queued; n == queued; { // in this order
			l.mu.Lock()
			n = len(l.queue)
			l.mu.Unlock()
		}
	}
	for range large {
		read(fmt.Sprint("l", size))
	}
	read("many1", fmt.Sprint("many", size), "many7", fmt.Sprint("some", size), "many9")
	read("small1")
	r := &sizedRoute{t: t, at: make(map[string]int)}
	l.setRoute(r)
	callers.Wait()
	if r.largest > size+readBytes+4096 {
		t.Errorf("a reply of %d bytes", r.largest)
	}
	if at := r.at["small1"]; at > large/8 {
		t.Errorf("a small read was answered in bundle %d of %d", at, r.bundles)
	}
	if r.bundles > large+10 {
		t.Errorf("%d bundles for %d large values", r.bundles, large+2)
	}
}
