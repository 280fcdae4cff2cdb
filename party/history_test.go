package party_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// history is one iterator and all that happens while it is open.
type history struct {
	*world
	rng  *rand.Rand
	o    party.IterOptions
	it   walker
	snap *pebble.Snapshot // of the model, when the iterator was opened
	pin  *pebble.Iterator // over snap
	skim *pebble.Iterator // the same, for plausible

	// loose: the leader went away. From then on keys that were written since the
	// iterator was opened may be seen as they were or are.
	loose   bool
	written map[string][][]byte // every value that such a key had since, nil: absent

	at   []byte // the current key
	edge int    // -1: in front of the first key, 1: behind the last one, 0: at
}

// run runs the history of one seed. disturb is called now and then; it returns
// true if the leader went away.
func (w *world) run(seed uint64, disturb func(rng *rand.Rand) bool) {
	w.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4711))
	h := &history{world: w, rng: rng, written: make(map[string][][]byte)}
	h.bounds()
	h.it, h.snap = w.iter(&h.o), w.model.NewSnapshot()
	var err error
	for _, it := range []**pebble.Iterator{&h.pin, &h.skim} {
		*it, err = h.snap.NewIter(&pebble.IterOptions{LowerBound: h.o.LowerBound, UpperBound: h.o.UpperBound})
		must(w.t, err)
	}
	defer func() {
		must(w.t, h.pin.Close())
		must(w.t, h.skim.Close())
		must(w.t, h.snap.Close())
		must(w.t, h.it.Close())
		if w.t.Failed() {
			w.t.Logf("seed %d, %+v", seed, h.o)
		}
	}()
	for move := range 10 + rng.IntN(30) {
		if rng.IntN(4) == 0 || move == 0 && rng.IntN(2) == 0 {
			h.change()
		}
		if disturb(rng) {
			h.loose = true
		}
		h.move()
		if w.t.Failed() {
			return
		}
	}
}

func (h *history) bounds() {
	key := func() []byte { return worldKey(h.rng.IntN(worldKeys)) }
	if h.rng.IntN(3) == 0 {
		h.o.LowerBound = key()
	}
	if h.rng.IntN(3) == 0 {
		h.o.UpperBound = key()
	}
	if h.o.LowerBound != nil && h.o.UpperBound != nil && bytes.Compare(h.o.LowerBound, h.o.UpperBound) > 0 {
		h.o.LowerBound, h.o.UpperBound = h.o.UpperBound, h.o.LowerBound
	}
	h.o.KeysOnly = h.rng.IntN(4) == 0
}

// change writes something.
func (h *history) change() {
	var b pebble.Batch
	note := func(k, v []byte) {
		old, c, err := h.model.Get(k)
		if err == nil {
			old = bytes.Clone(old)
			must(h.t, c.Close())
		} else {
			old = nil
		}
		h.written[string(k)] = append(h.written[string(k)], old, v)
	}
	for range 1 + h.rng.IntN(8) {
		i := h.rng.IntN(worldKeys)
		k := worldKey(i)
		switch h.rng.IntN(5) {
		case 0:
			must(h.t, b.Delete(k, nil))
			note(k, nil)
		case 1:
			n := h.rng.IntN(20)
			must(h.t, b.DeleteRange(k, worldKey(i+n), nil))
			for j := range n {
				note(worldKey(i+j), nil)
			}
		default:
			v := worldValue(h.rng, h.rng.IntN(400) == 0)
			must(h.t, b.Set(k, v, nil))
			note(k, v)
		}
	}
	h.apply(&b)
}

// move moves the iterator, perhaps many times, and checks where it is.
func (h *history) move() {
	next := func(n int) {
		for range n {
			if !h.step("Next", h.it.Next, h.pin.Next, h.from(), nil, false) {
				return
			}
		}
	}
	prev := func(n int) {
		for range n {
			if !h.step("Prev", h.it.Prev, h.pin.Prev, nil, h.from(), true) {
				return
			}
		}
	}
	seek := h.rng.IntN(10)
	if h.at == nil && h.edge == 0 { // Pebble's wants to be positioned first
		seek = h.rng.IntN(4)
	}
	switch seek {
	case 0:
		h.edge = -1
		h.step("First", h.it.First, h.pin.First, nil, nil, false)
	case 1:
		h.edge = 1
		h.step("Last", h.it.Last, h.pin.Last, nil, nil, true)
	case 2:
		k := worldKey(h.rng.IntN(worldKeys + 2))
		h.edge = -1
		h.step("SeekGE "+string(k), func() bool { return h.it.SeekGE(k) }, func() bool { return h.pin.SeekGE(k) }, k, nil, false)
	case 3:
		k := worldKey(h.rng.IntN(worldKeys + 2))
		h.edge = 1
		h.step("SeekLT "+string(k), func() bool { return h.it.SeekLT(k) }, func() bool { return h.pin.SeekLT(k) }, nil, k, true)
	case 4, 5, 6:
		next(1 << h.rng.IntN(10))
	case 7, 8:
		prev(1 << h.rng.IntN(10))
	case 9: // to and fro
		for range h.rng.IntN(5) {
			next(h.rng.IntN(60))
			prev(h.rng.IntN(60))
		}
	}
}

// from is the first key behind the current one, and by that a bound for what
// comes in front of it, less a zero byte.
func (h *history) from() []byte { return h.at }

// step makes one move. The next key is at or above from, or below to, and not the
// current one.
func (h *history) step(what string, move, model func() bool, from, to []byte, reverse bool) bool {
	h.t.Helper()
	edge := h.edge
	ok, want := move(), model()
	if err := h.it.Error(); err != nil {
		h.t.Errorf("%s: %v", what, err)
		return false
	}
	if ok != h.it.Valid() || ok != (h.it.Key() != nil) {
		h.t.Errorf("%s: %t, but valid %t at %q", what, ok, h.it.Valid(), h.it.Key())
		return false
	}
	key := bytes.Clone(h.it.Key())
	if !h.loose {
		if ok != want || ok && !bytes.Equal(key, h.pin.Key()) {
			h.t.Errorf("%s from %q: %t, %q; the model says %t, %q", what, h.at, ok, key, want, h.pin.Key())
			return false
		}
		if ok && !h.o.KeysOnly && !bytes.Equal(h.it.Value(), h.pin.Value()) {
			h.t.Errorf("%s: the value of %q has %d bytes, %d in the model", what, key, len(h.it.Value()), len(h.pin.Value()))
			return false
		}
	} else if !h.plausible(what, key, from, to, reverse, edge) {
		return false
	}
	if h.o.KeysOnly && h.it.Value() != nil {
		h.t.Errorf("%s: a value with KeysOnly", what)
		return false
	}
	switch h.at, h.edge = key, 0; {
	case !ok && reverse:
		h.edge = -1
	case !ok:
		h.edge = 1
	}
	return ok
}

// plausible checks a move of an iterator that may have gone on at another point in
// time: it must not have passed over a key that was there throughout, must have
// moved on, and must be on a key that was there with that value at some time.
func (h *history) plausible(what string, key, from, to []byte, reverse bool, edge int) bool {
	fail := func(format string, args ...any) bool {
		h.t.Errorf("%s from %q (edge %d), loose: at %q: %s", what, h.at, edge, key, fmt.Sprintf(format, args...))
		return false
	}
	stays := !reverse && edge == 1 || reverse && edge == -1
	if stays {
		if key != nil {
			return fail("moved on behind the end")
		}
		return true
	}
	if key != nil {
		in := h.o.LowerBound == nil || bytes.Compare(key, h.o.LowerBound) >= 0
		in = in && (h.o.UpperBound == nil || bytes.Compare(key, h.o.UpperBound) < 0)
		in = in && (from == nil || bytes.Compare(key, from) >= 0) && (to == nil || bytes.Compare(key, to) < 0)
		if what == "Next" && from != nil {
			in = in && !bytes.Equal(key, from)
		}
		if !in {
			return fail("out of bounds")
		}
		if !h.held(key) {
			return fail("it was never there with that value")
		}
	}
	// What was passed over, from the snapshot of the model.
	it, ok := h.skim, false
	switch {
	case reverse && to == nil:
		ok = it.Last()
	case reverse:
		ok = it.SeekLT(to)
	case from == nil:
		ok = it.First()
	default:
		if ok = it.SeekGE(from); ok && what == "Next" && bytes.Equal(it.Key(), from) {
			ok = it.Next()
		}
	}
	for ok {
		if c := bytes.Compare(it.Key(), key); key != nil && (c == 0 || c > 0 != reverse) {
			break
		}
		if h.written[string(it.Key())] == nil {
			return fail("it passed over %q", it.Key())
		}
		if reverse {
			ok = it.Prev()
		} else {
			ok = it.Next()
		}
	}
	return true
}

// held tells whether key had the value that the iterator shows at some time since
// it was opened.
func (h *history) held(key []byte) bool {
	values := h.written[string(key)]
	if values == nil {
		v, c, err := h.snap.Get(key)
		if err != nil {
			return false
		}
		defer func() { must(h.t, c.Close()) }()
		return h.o.KeysOnly || bytes.Equal(v, h.it.Value())
	}
	for _, v := range values {
		if v != nil && (h.o.KeysOnly || bytes.Equal(v, h.it.Value())) {
			return true
		}
	}
	return false
}
