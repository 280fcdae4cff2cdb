package party_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

// Every sequence number of a log of several segments, while retention works on it
// and somebody writes: the events from there on, or where the log starts.
func TestSubscription_ResumesFromEveryNumber(t *testing.T) {
	o := &party.Options{Retention: party.Retention{MaxBytes: 8 << 20}}
	leader, follower := pair(t, o)
	for name, db := range map[string]*party.DB{"leader": leader, "follower": follower} {
		t.Run(name, func(t *testing.T) {
			var seqs []uint64
			write := func() {
				seqs = append(seqs, applyBatch(t, leader, fmt.Sprintf("Set k=%d", len(seqs)), "Set big="+string(pattern(200<<10))))
			}
			first := func() uint64 { return responding(t, leader).FirstSeq }
			start := first()
			until(t, "retention removes something", func() bool { write(); return len(seqs) > 60 && first() > start+20 })
			compacted := 0
			for i := range seqs {
				if i%10 == 0 {
					write()
				}
				sub, from := subscribeOnward(t, db, leader, seqs[i])
				if from > seqs[i] {
					compacted++
				}
				at, ok := slices.BinarySearch(seqs, from)
				if !ok {
					t.Fatalf("the log starts at %d, which nobody wrote", from)
				}
				for j, seq := range seqs[at:min(at+15, len(seqs))] {
					ev, err := sub.Next(within(t))
					if err != nil && j > 0 { // the first one Subscribe has read
						logStart(t, leader, err, seq)
						break
					}
					must(t, err)
					if ev.Seq != seq {
						t.Fatalf("from %d: got %d, want %d", from, ev.Seq, seq)
					}
				}
				must(t, sub.Close())
			}
			if compacted == 0 || compacted == len(seqs) {
				t.Errorf("%d of %d were compacted", compacted, len(seqs))
			}
		})
	}
}

// subscribeOnward subscribes from a sequence number, or from where the log starts
// if that is later, and returns from where. Retention may go on meanwhile.
func subscribeOnward(t *testing.T, db, leader *party.DB, from uint64) (*party.Subscription, uint64) {
	t.Helper()
	for {
		s, err := db.Subscribe(within(t), &party.SubscribeOptions{From: from})
		if err == nil {
			return s, from
		}
		from = logStart(t, leader, err, from)
	}
}

// logStart returns where the log starts by an error that says that seq is not in
// it any more, and fails the test if err says something else or is not true.
func logStart(t *testing.T, leader *party.DB, err error, seq uint64) uint64 {
	t.Helper()
	var ce *party.CompactedError
	if !errors.As(err, &ce) || !errors.Is(err, party.ErrCompacted) || ce.First <= seq {
		t.Fatalf("for %d: %v", seq, err)
	}
	until(t, "the leader says so too", func() bool { return responding(t, leader).FirstSeq >= ce.First })
	return ce.First
}

// A subscription that nobody reads from is overtaken by retention, which it does
// not hold up, and says so for good.
func TestSubscription_IsOvertakenByRetention(t *testing.T) {
	leader, follower := pair(t, &party.Options{Retention: party.Retention{MaxBytes: 4 << 20}})
	subs := map[string]*party.Subscription{"leader": subscribe(t, leader, nil), "follower": subscribe(t, follower, nil)}
	seq := applyBatch(t, leader, "Set a=b")
	for _, s := range subs {
		if ev := next(t, s); ev.Seq != seq {
			t.Fatalf("event %d, want %d", ev.Seq, seq)
		}
	}
	overrun(t, leader, seq)
	for name, s := range subs {
		t.Run(name, func(t *testing.T) {
			// What is in the file that it has open it may still deliver.
			want := seq
			for {
				want++
				ev, err := s.Next(within(t))
				if err == nil && ev.Seq == want {
					continue
				}
				if err == nil {
					t.Fatalf("event %d; want %d or the news that it is gone", ev.Seq, want)
				}
				start := logStart(t, leader, err, want)
				if _, again := s.Next(within(t)); !errors.Is(again, party.ErrCompacted) {
					t.Fatalf("then %v", again)
				}
				s, from := subscribeOnward(t, leader, leader, start)
				if ev := next(t, s); ev.Seq != from {
					t.Fatalf("the log starts at %d, and its first event is %d", from, ev.Seq)
				}
				must(t, s.Close())
				return
			}
		})
	}
}

// overrun writes until retention has removed the log up to seq and beyond.
func overrun(t *testing.T, db *party.DB, seq uint64) {
	t.Helper()
	until(t, "retention removes what is old", func() bool {
		applyBatch(t, db, "Set x="+string(pattern(30<<10)))
		return responding(t, db).FirstSeq > seq+100
	})
}

// One that waits for keys that nobody touches is told how far the log has come,
// and retention does not run it over.
func TestSubscription_IdleOneIsNotOvertaken(t *testing.T) {
	leader, follower := pair(t, &party.Options{Retention: party.Retention{MaxBytes: 4 << 20}})
	events := make(chan party.Event)
	for _, db := range []*party.DB{leader, follower} {
		s := subscribe(t, db, &party.SubscribeOptions{LowerBound: []byte("k"), UpperBound: []byte("l")})
		go func() {
			for range 2 {
				ev, err := s.Next(within(t))
				if err != nil {
					t.Error(err)
				}
				events <- ev
			}
		}()
	}
	seq := applyBatch(t, leader, "Set k=1")
	for i := range 2 {
		for range 2 {
			if ev := receive(t, "an event", events); ev.Seq != seq {
				t.Fatalf("event %d, want %d", ev.Seq, seq)
			}
		}
		if i == 0 {
			overrun(t, leader, seq)
			seq = applyBatch(t, leader, "Set k=2")
		}
	}
}

// cutPower does to the log what a power cut does to a process that was killed
// with writes it had not synced: they are gone. It returns the last number kept.
func cutPower(t *testing.T, dir string) (kept uint64) {
	t.Helper()
	word, err := eventlog.ReadCommit(filepath.Join(dir, "party", "commit"))
	must(t, err)
	kept = word.Durable()
	must(t, word.Close())
	names, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
	must(t, err)
	f, err := os.OpenFile(names[len(names)-1], os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b, err := os.ReadFile(f.Name())
	must(t, err)
	at := 128
	for {
		length, seq := binary.LittleEndian.Uint32(b[at+4:]), binary.LittleEndian.Uint64(b[at+8:])
		if seq == 0 {
			t.Fatalf("nothing behind %d was unsynced", kept)
		}
		if seq > kept {
			break
		}
		at += 32 + int(length+7)&^7
	}
	clear(b[at:])
	_, err = f.WriteAt(b[at:], int64(at))
	must(t, err)
	return kept
}

// unsynced starts a leader that writes synced and unsynced entries, and returns
// it with the number of the last.
func unsynced(t *testing.T, dir string) (*process, uint64) {
	t.Helper()
	p := start(t, config{Dir: dir})
	for _, noSync := range []bool{false, true} {
		p.do(request{Op: "sets", N: 20, Key: []byte(fmt.Sprint(noSync)), Value: []byte("v"), NoSync: noSync})
	}
	return p, p.do(request{Op: "status"}).Status.Committed
}

// After a power cut has taken entries, who has seen some of them is told so, and
// nobody else.
func TestSubscription_FromWhatAPowerCutTook(t *testing.T) {
	dir := newDir(t)
	p, last := unsynced(t, dir)
	p.kill()
	kept := cutPower(t, dir)
	db := open(t, dir, nil)
	leads(t, db)
	follower := open(t, dir, nil)
	term := responding(t, db).Committed
	if kept >= last || term <= last {
		t.Fatalf("%d of %d kept, the term begins at %d", kept, last, term)
	}
	for _, db := range []*party.DB{db, follower} {
		seq := applyBatch(t, db, "Set a=b")
		for from, lost := range map[uint64]uint64{
			1: 0, kept: 0, kept + 1: 0, kept + 2: kept, last: kept, last + 1: kept, term - 1: kept, term: kept,
			term + 1: 0, seq: 0, seq + 1: 0, seq + 2: seq,
		} {
			s, err := db.Subscribe(within(t), &party.SubscribeOptions{From: from})
			var te *party.TruncatedError
			switch {
			case lost == 0:
				if err != nil {
					t.Fatalf("from %d: %v", from, err)
				}
				must(t, s.Close())
			case !errors.As(err, &te) || te.Last != lost:
				t.Fatalf("from %d: %v, want that all after %d was lost", from, err, lost)
			}
		}
		s := subscribe(t, db, &party.SubscribeOptions{From: kept})
		if ev := next(t, s); ev.Seq != kept {
			t.Fatalf("event %d, want %d", ev.Seq, kept)
		}
		if ev := next(t, s); ev.Seq <= term {
			t.Fatalf("event %d, want one of the term that began at %d", ev.Seq, term)
		}
	}
}

// noRoom is a disk on which this process cannot lead.
type noRoom struct{ vfs.FS }

func (noRoom) GetDiskUsage(string) (vfs.DiskUsage, error) { return vfs.DiskUsage{}, nil }
func (f noRoom) Unwrap() vfs.FS                           { return f.FS }

// A subscription that has read what its leader then failed to make durable, and
// what went with it, learns that from the next leader.
func TestSubscription_HasSeenWhatIsLost(t *testing.T) {
	dir := newDir(t)
	p, last := unsynced(t, dir)
	db := open(t, dir, &party.Options{Pebble: &pebble.Options{FS: noRoom{vfs.Default}}})
	s := subscribe(t, db, &party.SubscribeOptions{From: 1})
	for ev := next(t, s); ev.Seq < last; {
		ev = next(t, s)
	}
	p.kill()
	kept := cutPower(t, dir)
	start(t, config{Dir: dir}).do(request{Op: "set", Key: []byte("a")})
	for {
		ev, err := s.Next(within(t))
		if errors.Is(err, party.ErrDiskFull) {
			continue // nobody leads yet
		}
		var te *party.TruncatedError
		if !errors.As(err, &te) || te.Last != kept {
			t.Fatalf("event %d, %v; want to hear that all after %d was lost", ev.Seq, err, kept)
		}
		break
	}
	_, err := s.Next(within(t))
	want(t, err, party.ErrTruncated)
	must(t, db.Close()) // while somebody else has room to complete the state
}

// Damage is reported with its place.
func TestSubscription_CorruptLog(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, nil)
	leads(t, db)
	follower := open(t, dir, nil)
	var seq uint64
	for i := range 10 {
		seq = applyBatch(t, db, fmt.Sprintf("Set key%d=here it is", i))
	}
	names, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
	must(t, err)
	b, err := os.ReadFile(names[0])
	must(t, err)
	f, err := os.OpenFile(names[0], os.O_WRONLY, 0)
	must(t, err)
	at := int64(bytes.Index(b, []byte("key5")))
	_, err = f.WriteAt([]byte("kez5"), at)
	must(t, err)
	for _, db := range []*party.DB{db, follower} {
		s := subscribe(t, db, &party.SubscribeOptions{From: 2})
		for range 5 {
			next(t, s)
		}
		for range 2 {
			_, err := s.Next(within(t))
			want(t, err, party.ErrCorrupt)
			var ce *eventlog.CorruptError
			if !errors.As(err, &ce) || ce.Seq != seq-4 {
				t.Fatal(err)
			}
		}
	}
	_, err = f.WriteAt([]byte("key5"), at) // the clean-up wants to read it
	must(t, err)
	must(t, f.Close())
}
