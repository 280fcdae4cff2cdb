package party

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/mutant"
)

// notifier tells subscriptions that wait when there is something for them. They
// ask each time they have read all there is, and are told once: nobody pays
// while nobody waits.
//
// No wake-up is lost. Who waits puts itself on the list and then looks at the
// commit word; the sequencer advances the word and then looks at the list. So
// one of the two sees the other.
type notifier struct {
	compare pebble.Compare
	word    *eventlog.Commit

	waits atomic.Int64 // on the list: all that the sequencer looks at while there are none

	mu      sync.Mutex
	list    map[waiter]*wait
	ranges  int        // of all on the list
	through uint64     // what is on the list has been held against all up to here
	quiet   []heard    // of the look that goes on: not touched so far
	ops     []apply.Op // of the entry that is looked at

	rung chan struct{} // capacity 1: news is not empty
	news struct {
		sync.Mutex
		entries []byte // end to end
		marks   []mark // where each ends
		most    uint64 // committed with what is here
		missed  bool   // more than is kept: look at nothing, tell everybody
	}

	// Owned by run.
	entries []byte
	marks   []mark
}

// waiter is who waits: a handle over its connection, or a subscription of this
// process.
type waiter struct {
	origin apply.Origin
	here   *Subscription
}

// wait is a request to be told when something is committed behind after that
// touches one of ranges.
type wait struct {
	id     uint64 // grows with each request of a waiter
	after  uint64
	ranges []bounds // none: everything
	// unacked is that of waitRequest.
	unacked uint64
	since   time.Time
	tell    func(notice) // must not block
}

// weight is about how many comparisons an operation costs.
func (w *wait) weight() int { return max(1, len(w.ranges)) }

type mark struct {
	seq uint64
	end int
}

// notice is what a wait is told: nothing up to Through touches its ranges, the log
// is committed up to Committed. Note: the named subscription that owes no Ack is to
// note how far it has come.
type notice struct {
	Through, Committed uint64
	Note               bool
}

const (
	// newsBytes bounds what is kept for run to look at, and newsChecks how often it
	// compares a key with a range for it. Beyond that everybody is told, and
	// looks for himself.
	newsBytes  = 64 << 10
	newsChecks = 1 << 14

	// The sequencer looks by itself if that takes it a few microseconds: one or two
	// entries and not many who wait. So a lone writer's event is on its way as
	// soon as the answer is, and not behind the waking of a goroutine. nearBytes
	// bounds the bytes of entries times the ranges that they are held against.
	nearEntries = 2
	nearWaits   = 16
	nearBytes   = 16 << 10

	// noticeAfter is how long a wait stays without an answer. Those who wait then
	// know that they have read up to where the log is now, and not retention's next
	// victim; and waits of processes that are gone go away.
	noticeAfter = 10 * time.Second

	// noteWaits bounds how many are told to note how far they have come each time
	// that Pebble has flushed. What they write then must be little beside what made
	// it flush, or it would go on for ever.
	noteWaits = 16
)

func newNotifier(l *leader) *notifier {
	return &notifier{
		compare: l.db.opts.Pebble.Comparer.Compare, word: l.word,
		list: make(map[waiter]*wait), rung: make(chan struct{}, 1), through: l.first,
	}
}

// add puts w on the list in the place of what the same waiter asked before, or
// tells it at once if there is something.
func (n *notifier) add(who waiter, w *wait) {
	w.since = time.Now()
	n.mu.Lock()
	if old := n.list[who]; old != nil {
		if old.id > w.id {
			n.mu.Unlock()
			return // requests may overtake each other on their way here
		}
		n.remove(who)
	}
	n.list[who] = w
	n.ranges += w.weight()
	n.waits.Add(1)
	committed := n.word.Committed()
	if committed > w.after {
		n.remove(who)
	}
	n.mu.Unlock()
	if committed > w.after {
		w.tell(notice{Through: w.after, Committed: committed})
	}
}

// drop takes a waiter off the list.
func (n *notifier) drop(who waiter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.list[who] != nil {
		n.remove(who)
	}
}

func (n *notifier) remove(who waiter) {
	n.ranges -= n.list[who].weight()
	delete(n.list, who)
	n.waits.Add(-1)
}

// committed is called by the sequencer after it has advanced the commit word
// over entries, the first of which has the sequence number first.
func (n *notifier) committed(first uint64, entries [][]byte) {
	if n.waits.Load() > 0 && !n.lookNow(first, entries) {
		n.ring(first, entries)
	}
}

// lookNow is look for the sequencer; false: it would take too long, or run has to
// look at something before.
func (n *notifier) lookNow(first uint64, entries [][]byte) bool {
	if len(entries) > nearEntries || !n.mu.TryLock() {
		return false
	}
	size := 0
	for _, e := range entries {
		size += len(e)
	}
	n.news.Lock()
	pending := n.news.missed || len(n.news.marks) > 0
	n.news.Unlock()
	if pending || len(n.list) > nearWaits || size*n.ranges > nearBytes {
		n.mu.Unlock()
		return false
	}
	most := first + uint64(len(entries)) - 1
	n.begin(most)
	var told []heard
	checks := 0
	for i, e := range entries {
		told = n.hold(told, first+uint64(i), e, &checks)
	}
	n.end(most, told)
	return true
}

// ring leaves the entries for run. It takes the time of a copy, and no more.
func (n *notifier) ring(first uint64, entries [][]byte) {
	n.news.Lock()
	for i, e := range entries {
		if n.news.missed = n.news.missed || len(n.news.entries)+len(e) > newsBytes; n.news.missed {
			break
		}
		n.news.entries = append(n.news.entries, e...)
		n.news.marks = append(n.news.marks, mark{first + uint64(i), len(n.news.entries)})
	}
	n.news.most = first + uint64(len(entries)) - 1
	n.news.Unlock()
	select {
	case n.rung <- struct{}{}:
	default:
	}
}

// run tells those who wait, until the term ends.
func (n *notifier) run(ctx context.Context) {
	tick := time.NewTicker(noticeAfter / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.rung:
			n.look()
		case now := <-tick.C:
			n.refresh(now)
		}
	}
}

// look holds the news against the list.
func (n *notifier) look() {
	n.mu.Lock()
	n.news.Lock()
	most, missed := n.news.most, n.news.missed
	n.entries, n.news.entries = n.news.entries, n.entries[:0]
	n.marks, n.news.marks = n.news.marks, n.marks[:0]
	n.news.missed = false
	n.news.Unlock()

	n.begin(most)
	var told []heard
	if missed {
		told = append(told, n.quiet...)
	} else {
		at, checks := 0, 0
		for _, m := range n.marks {
			told = n.hold(told, m.seq, n.entries[at:m.end], &checks)
			at = m.end
		}
	}
	n.end(most, told)
}

// heard is a wait that the news are held against: nothing up to through touches it.
type heard struct {
	who waiter
	*wait
	through uint64
}

// begin begins a look at what was committed up to most: nobody is touched so far.
// mu is held.
func (n *notifier) begin(most uint64) {
	n.quiet = n.quiet[:0]
	for who, w := range n.list {
		if w.after < most { // else it came after the news
			n.quiet = append(n.quiet, heard{who, w, n.through})
		}
	}
}

// hold moves those whom an entry touches from quiet to told. The entry is decoded
// once for all of them. mu is held.
func (n *notifier) hold(told []heard, seq uint64, entry []byte, checks *int) []heard {
	if len(n.quiet) == 0 {
		return told
	}
	readable := n.decode(entry)
	n.quiet = slices.DeleteFunc(n.quiet, func(h heard) bool {
		if seq <= h.after || readable && !n.touches(h.ranges, checks) {
			return false
		}
		h.through = seq - 1
		told = append(told, h)
		return true
	})
	return told
}

// end ends a look. mu is held, and let go.
func (n *notifier) end(most uint64, told []heard) {
	committed := n.word.Committed()
	for _, h := range told {
		n.remove(h.who)
	}
	n.through = most
	n.mu.Unlock()
	if mutant.LostWakeUp && most%16 == 0 {
		return
	}
	for _, h := range told {
		h.tell(notice{Through: max(h.through, h.after), Committed: committed})
	}
}

// decode reads the operations of an entry; false: whoever reads it says why not.
func (n *notifier) decode(entry []byte) bool {
	e, err := apply.DecodeEntry(entry)
	n.ops = n.ops[:0]
	if err != nil || e.Cursor {
		return err == nil // a cursor is no event
	}
	ops := apply.ReadOps(e.Repr)
	for op, ok := ops.Next(); ok; op, ok = ops.Next() {
		n.ops = append(n.ops, op)
	}
	return true
}

// touches tells whether the operations touch one of ranges, as far as that may be
// looked at.
func (n *notifier) touches(ranges []bounds, checks *int) bool {
	if len(ranges) == 0 {
		return len(n.ops) > 0
	}
	for i := range n.ops {
		if *checks += len(ranges); *checks > newsChecks {
			return true
		}
		for j := range ranges {
			clipped := n.ops[i]
			if ranges[j].clip(n.compare, &clipped) {
				return true
			}
		}
	}
	return false
}

// refresh answers those who have waited for long.
func (n *notifier) refresh(now time.Time) {
	var told []*wait
	n.mu.Lock()
	for who, w := range n.list {
		if now.Sub(w.since) > noticeAfter {
			n.remove(who)
			told = append(told, w)
		}
	}
	through, committed := n.through, n.word.Committed()
	n.mu.Unlock()
	for _, w := range told {
		w.tell(notice{Through: max(through, w.after), Committed: committed})
	}
}

// note has those named subscriptions note how far they have come that are
// farthest behind, though they have had nothing to acknowledge. The keeper calls it
// when the log has grown, so that it keeps no log for them, and they are not
// overtaken when they come back.
func (n *notifier) note() {
	type behind struct {
		who waiter
		*wait
	}
	n.mu.Lock()
	through, committed := n.through, n.word.Committed()
	var told []behind
	for who, w := range n.list {
		if w.unacked > 0 && w.unacked <= max(through, w.after) {
			told = append(told, behind{who, w})
		}
	}
	slices.SortFunc(told, func(a, b behind) int { return cmp.Compare(a.unacked, b.unacked) })
	told = told[:min(len(told), noteWaits)]
	for _, b := range told {
		n.remove(b.who)
	}
	n.mu.Unlock()
	for _, b := range told {
		b.tell(notice{Through: max(through, b.after), Committed: committed, Note: true})
	}
}
