package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Lists appends numbered entries, each lane to a list of its own, some of them
// large, and now and then walks over lists with an iterator. Lane 0 of each
// process subscribes to all lists, from the log's beginning, and goes on where the
// process before it in its place was killed.
type Lists struct{}

const (
	listPrefix = "list/"
	largeValue = 64 << 10
)

// Name returns "lists".
func (Lists) Name() string { return "lists" }

func (Lists) firstReads() {}

// Prepare does nothing.
func (Lists) Prepare(context.Context, *party.DB) error { return nil }

func listKey(lane string, n int) string { return fmt.Sprintf("%s%s/%08d", listPrefix, lane, n) }

// splitListKey is the reverse of listKey.
func splitListKey(key string) (lane string, n int, err error) {
	lane, number, ok := strings.Cut(strings.TrimPrefix(key, listPrefix), "/")
	if n, err = strconv.Atoi(number); !ok || err != nil {
		return "", 0, fmt.Errorf("key %q is of no list", key)
	}
	return lane, n, nil
}

// Work appends one entry, walks over lists, or reads events until its context ends.
func (s Lists) Work(ctx context.Context, l *Lane) error {
	if l.Index == 0 {
		return s.follow(ctx, l)
	}
	if l.Rand.IntN(32) == 0 {
		return s.walk(ctx, l)
	}
	at, _ := l.State.(listEnd)
	key := listKey(fmt.Sprintf("%s.%d", l.ID, at.list), at.n)
	value := []byte(key)
	if l.Rand.IntN(64) == 0 {
		value = slices.Repeat([]byte(key+" "), largeValue/len(key))
	}
	var b pebble.Batch
	if err := b.Set([]byte(key), value, nil); err != nil {
		return err
	}
	err := l.Do(ctx, Op{Name: "append", Key: key, Write: true}, func(ctx context.Context) (string, error) {
		seq, err := l.DB.Apply(ctx, &b, pebble.Sync)
		if err == nil {
			l.Due(seq)
		}
		return strconv.FormatUint(seq, 10), err
	})
	switch {
	case err == nil:
		l.State = listEnd{at.list, at.n + 1}
	case !refused(err): // it is there or not: another list goes on
		l.State = listEnd{at.list + 1, 0}
	}
	return err
}

// listEnd is where a lane appends next.
type listEnd struct{ list, n int }

// follow notes every event, as its sequence number and its keys.
func (Lists) follow(ctx context.Context, l *Lane) error {
	from := uint64(1)
	if next, ok := l.State.(uint64); ok { // an excused error ended the one before
		from = next
	} else if last := l.LastNote(); last != "" {
		seen, err := parseSeen(last)
		if err != nil {
			return err
		}
		from = seen.seq + 1
	}
	var sub *party.Subscription
	err := l.Do(ctx, Op{Name: "subscribe", Input: strconv.FormatUint(from, 10)}, func(ctx context.Context) (_ string, err error) {
		sub, err = l.DB.Subscribe(ctx, &party.SubscribeOptions{From: from, LowerBound: []byte(listPrefix), UpperBound: after(listPrefix)})
		return "", err
	})
	if err != nil {
		return err
	}
	defer sub.Close()
	l.Delivered(from - 1)
	for e, err := range sub.Events(ctx) {
		if err != nil {
			return err
		}
		l.Note(seenOf(e.Seq, e.Ops).String())
		l.Delivered(e.Seq)
		l.State = e.Seq + 1
	}
	return nil
}

// seen is an event: what a subscriber noted, or what the log has.
type seen struct {
	seq  uint64
	keys string // with their kinds, separated by spaces
}

func seenOf(seq uint64, ops []party.Op) seen {
	var keys []string
	for _, op := range ops {
		if strings.HasPrefix(string(op.Key), listPrefix) {
			keys = append(keys, op.Kind.String()+":"+string(op.Key))
		}
	}
	return seen{seq: seq, keys: strings.Join(keys, " ")}
}

// String is what a subscriber notes.
func (s seen) String() string { return fmt.Sprintf("%d %s", s.seq, s.keys) }

func parseSeen(note string) (seen, error) {
	number, keys, _ := strings.Cut(note, " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return seen{}, fmt.Errorf("note of an event: %w", err)
	}
	return seen{seq: seq, keys: keys}, nil
}

// Check reads the log and compares with it what writers were told, what
// subscribers saw, what a subscription gives now, and what is in the database.
func (Lists) Check(ctx context.Context, e *Evidence) Verdict {
	log, err := readLists(e.Dir)
	if errors.Is(err, party.ErrCompacted) {
		return Verdict{Undecided: fmt.Sprintf("the log is not whole any more: %v", err)}
	}
	if err != nil {
		return Verdict{Violations: []string{fmt.Sprintf("read the log: %v", err)}}
	}
	v := judgeLists(e.Calls, e.Notes, log)
	v.Detail += fmt.Sprintf(", %d walks over lists missed nothing", judgeWalks(e.Calls, &v))
	state, err := e.scan(ctx, listPrefix)
	if err != nil {
		v.violate(fmt.Sprintf("read the lists: %v", err))
		return v
	}
	for _, s := range log {
		for _, key := range s.listKeys() {
			if value, ok := state[key]; !ok {
				v.violate(fmt.Sprintf("%s is in the log under %d and not in the database", key, s.seq))
			} else if !strings.HasPrefix(value, key) {
				v.violate(fmt.Sprintf("%s has the value of another: %.60q", key, value))
			}
			delete(state, key)
		}
	}
	for key := range state {
		v.violate(fmt.Sprintf("%s is in the database and not in the log", key))
	}
	replayed, err := e.subscribeAll(ctx, len(log))
	if err != nil {
		v.violate(fmt.Sprintf("subscribe at the end: %v", err))
	} else if !slices.Equal(replayed, log) {
		v.violate("a subscription from the beginning gives other events than the log has")
	}
	return v
}

// readLists returns what the log says of lists.
func readLists(dir string) ([]seen, error) {
	r, err := party.OpenLog(dir, 1)
	if err != nil {
		return nil, err
	}
	var log []seen
	for {
		entry, err := r.Next()
		if errors.Is(err, io.EOF) {
			return log, r.Close()
		}
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		if s := seenOf(entry.Seq, entry.Ops); s.keys != "" {
			log = append(log, s)
		}
	}
}

// subscribeAll returns the first n events.
func (e *Evidence) subscribeAll(ctx context.Context, n int) ([]seen, error) {
	sub, err := e.DB.Subscribe(ctx, &party.SubscribeOptions{From: 1, LowerBound: []byte(listPrefix), UpperBound: after(listPrefix)})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	var events []seen
	for len(events) < n {
		event, err := sub.Next(ctx)
		if err != nil {
			return nil, err
		}
		events = append(events, seenOf(event.Seq, event.Ops))
	}
	return events, nil
}

func (s seen) listKeys() []string {
	var keys []string
	for field := range strings.FieldsSeq(s.keys) {
		_, key, _ := strings.Cut(field, ":")
		keys = append(keys, key)
	}
	return keys
}

// judgeLists compares what was done and seen with what the log has.
func judgeLists(calls []Call, notes []Note, log []seen) Verdict {
	var v Verdict
	at, place := map[string]uint64{}, map[uint64]int{}
	next := map[string]int{} // number of the next entry, by list
	for i, s := range log {
		place[s.seq] = i
		for _, key := range s.listKeys() {
			if first, ok := at[key]; ok {
				v.violate(fmt.Sprintf("%s is in the log under %d and again under %d", key, first, s.seq))
			}
			at[key] = s.seq
			list := key[:strings.LastIndexByte(key, '/')]
			if want := fmt.Sprintf("%s/%08d", list, next[list]); key != want {
				v.violate(fmt.Sprintf("%s is in the log under %d, where %s should come", key, s.seq, want))
			}
			next[list]++
		}
	}
	asked, acked := map[string]bool{}, 0
	for _, c := range calls {
		if c.Name != "append" {
			continue
		}
		asked[c.Key] = asked[c.Key] || !c.Refused
		if c.OK() {
			acked++
			if got := strconv.FormatUint(at[c.Key], 10); got != c.Output {
				v.violate(fmt.Sprintf("%s was acknowledged as %s at %s; the log has it under %s (0: not at all)", c.Key, c.Output, since(c.End), got))
			}
		}
	}
	for key, seq := range at {
		if !asked[key] {
			v.violate(fmt.Sprintf("%s is in the log under %d and nobody wrote it, or it was refused", key, seq))
		}
	}
	subscribers := map[int]int{} // events that were seen, by process
	for _, note := range notes {
		s, err := parseSeen(note.Text)
		if err != nil {
			v.violate(err.Error())
			continue
		}
		n := subscribers[note.Process]
		if n < len(log) && log[n] == s {
			subscribers[note.Process]++
			continue
		}
		want := "nothing"
		if n < len(log) {
			want = log[n].String()
		}
		v.violate(fmt.Sprintf("the subscriber of process %d got %q, where the log has %q", note.Process, s, want))
		if i, ok := place[s.seq]; ok {
			subscribers[note.Process] = i + 1 // goes on there, so that one gap is one violation
		}
	}
	events := 0
	for _, n := range subscribers {
		events += n
	}
	v.Detail = fmt.Sprintf("%d acknowledged appends are in the log once, %d events reached %d subscribers without gap or repeat", acked, events, len(subscribers))
	return v
}
