package party_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// readsLocally waits until db answers reads from its own replica.
func readsLocally(t testing.TB, db *party.DB) {
	t.Helper()
	until(t, "the handle reads from its own replica", func() bool {
		s, err := db.Status(within(t))
		must(t, err)
		return s.LocalReads
	})
}

// locals returns quiet options with local reads.
func locals() *party.Options {
	o := quietly()
	o.LocalReads = true
	return o
}

func number(t testing.TB, db *party.DB, key string) int {
	t.Helper()
	v, err := db.Get(within(t), []byte(key))
	must(t, err)
	n, err := strconv.Atoi(string(v))
	must(t, err)
	return n
}

// A process that was told that a write was done has another one, which reads its
// own replica, look for it, while the leaders of both are killed.
func TestLocalReads_SeeWhatAnotherProcessWasTold(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	writer := start(t, config{Dir: dir, Local: true})
	readers := []*process{start(t, config{Dir: dir, Local: true}), start(t, config{Dir: dir, Local: true})}
	here := open(t, dir, locals())
	next := 0
	round := func(n int) {
		for range n {
			next++
			value := strconv.Itoa(next)
			writer.do(request{Op: "set", Key: []byte("n"), Value: []byte(value), NoSync: next%2 == 0})
			got := string(readers[next%2].do(request{Op: "get", Key: []byte("n")}).Value)
			if got != value {
				t.Fatalf("a reader sees %s after %s was acknowledged", got, value)
			}
			if got := number(t, here, "n"); got != next {
				t.Fatalf("this process sees %d after %d was acknowledged", got, next)
			}
		}
	}
	for range 4 {
		for _, p := range readers {
			until(t, "a reader has its own replica, or leads", func() bool {
				s := p.do(request{Op: "status"}).Status
				return s.LocalReads || s.Role == party.Leading
			})
		}
		round(50)
		s, err := here.Status(within(t))
		must(t, err)
		if s.Role == party.Leading {
			must(t, here.Resign(within(t)))
			continue
		}
		for _, p := range []*process{leader, readers[0], readers[1]} {
			if p.pid == s.LeaderPID {
				p.kill()
				p2 := start(t, config{Dir: dir, Local: true})
				switch p {
				case leader:
					leader = p2
				case readers[0]:
					readers[0] = p2
				default:
					readers[1] = p2
				}
				break
			}
		}
		round(20)
	}
}

// Readers of many replicas never see a counter go back, whoever of them looked
// last, and never less than what was acknowledged, while leaders are killed.
func TestLocalReads_AreMonotonicTogether(t *testing.T) {
	dir := newDir(t)
	victim := start(t, config{Dir: dir})
	writer := open(t, dir, quietly())
	set(t, writer, "n", "0")
	var dbs []*party.DB
	for range 3 {
		db := open(t, dir, locals())
		readsLocally(t, db)
		dbs = append(dbs, db)
	}
	var acked, seen, reads atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		for n := int64(1); !stop.Load(); n++ {
			if err := writer.Set(within(t), []byte("n"), strconv.AppendInt(nil, n, 10), pebble.NoSync); err != nil {
				t.Errorf("set: %v", err)
				return
			}
			acked.Store(n)
		}
	})
	for i := range 6 {
		db := dbs[i%len(dbs)]
		all.Go(func() {
			for !stop.Load() {
				least := max(acked.Load(), seen.Load())
				v, err := db.Get(within(t), []byte("n"))
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				n, _ := strconv.ParseInt(string(v), 10, 64)
				if n < least {
					t.Errorf("a reader sees %d after %d was seen or acknowledged", n, least)
					return
				}
				for s := seen.Load(); s < n && !seen.CompareAndSwap(s, n); s = seen.Load() {
				}
				reads.Add(1)
				// Readers that never pause take the processors from the writers.
				<-time.After(100 * time.Microsecond)
			}
		})
	}
	goOn := func() {
		a, r := acked.Load()+100, reads.Load()+200
		defer func() {
			t.Logf("%d of %d writes, %d of %d reads", acked.Load(), a, reads.Load(), r)
		}()
		until(t, "writes and reads go on", func() bool {
			return t.Failed() || acked.Load() >= a && reads.Load() >= r
		})
	}
	for range 3 {
		goOn()
		victim.kill()
		goOn()
		victim = start(t, config{Dir: dir})
		for _, db := range append([]*party.DB{writer}, dbs...) {
			must(t, db.Resign(within(t)))
		}
	}
	goOn()
	stop.Store(true)
	all.Wait()
}

// handOver has from resign until to leads, which may miss its chance on a busy
// machine.
func handOver(t testing.TB, from, to *party.DB) {
	t.Helper()
	until(t, "the other one leads", func() bool {
		must(t, from.Resign(within(t)))
		s, err := to.Status(within(t))
		must(t, err)
		return s.Role == party.Leading
	})
}

func TestLocalReads_EndWhileTheHandleLeads(t *testing.T) {
	dir := newDir(t)
	other := open(t, dir, quietly())
	leads(t, other)
	db := open(t, dir, locals())
	readsLocally(t, db)
	for i := range 3 {
		handOver(t, other, db)
		set(t, db, "k", fmt.Sprint("leading ", i))
		expect(t, db, "k", fmt.Sprint("leading ", i))
		s, err := db.Status(within(t))
		if err != nil || s.Role == party.Leading && s.LocalReads {
			t.Errorf("a leader reads locally: %+v, %v", s, err)
		}
		handOver(t, db, other)
		set(t, other, "k", fmt.Sprint("following ", i))
		expect(t, db, "k", fmt.Sprint("following ", i))
		readsLocally(t, db)
		expect(t, db, "k", fmt.Sprint("following ", i))
	}
	must(t, db.Close())
	if left := replicaFolders(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// The next leader finds no commit word: what the others have mapped is a file that
// nobody writes any more.
func TestLocalReads_FindThatTheWordWasReplaced(t *testing.T) {
	dir := newDir(t)
	for range 20 {
		a := start(t, config{Dir: dir})
		until(t, "the child leads", func() bool { return a.do(request{Op: "status"}).Status.Role == party.Leading })
		b, reader := open(t, dir, quietly()), start(t, config{Dir: dir, Local: true})
		until(t, "the reader has a replica", func() bool { return reader.do(request{Op: "status"}).Status.LocalReads })
		set(t, b, "k", "old")
		if v := reader.do(request{Op: "get", Key: []byte("k")}).Value; string(v) != "old" {
			t.Fatalf("the reader sees %s", v)
		}
		must(t, os.Remove(filepath.Join(dir, "party", "commit")))
		a.kill()
		var wrote string
		for i := range 50 {
			wrote = strconv.Itoa(i)
			set(t, b, "k", wrote)
			if v := reader.do(request{Op: "get", Key: []byte("k")}).Value; string(v) != wrote {
				t.Fatalf("the reader sees %s after %s was acknowledged", v, wrote)
			}
		}
		followed := reader.do(request{Op: "status"}).Status.Role == party.Following
		if followed {
			until(t, "the reader has a new replica", func() bool { return reader.do(request{Op: "status"}).Status.LocalReads })
		}
		reader.end()
		must(t, b.Close())
		if followed {
			return
		}
	}
	t.Fatal("the reader led each time")
}

// A replica is replaced when it has applied much, and readers see nothing of it.
func TestLocalReads_ReplaceAWornReplica(t *testing.T) {
	dir := newDir(t)
	o := quietly()
	o.Retention.MaxBytes = 4 << 20
	leader := open(t, dir, o)
	leads(t, leader)
	db := open(t, dir, locals())
	readsLocally(t, db)
	first := replicaFolders(t, dir)
	it, err := db.NewIter(within(t), &party.IterOptions{Strict: true})
	must(t, err)
	for i := range 80 {
		must(t, leader.Set(within(t), []byte("big"), pattern(1<<20), pebble.NoSync))
		set(t, leader, "n", strconv.Itoa(i))
		if n := number(t, db, "n"); n != i {
			t.Fatalf("saw %d after %d was acknowledged", n, i)
		}
	}
	until(t, "there is a new replica", func() bool {
		expect(t, db, "n", "79")
		return len(replicaFolders(t, dir)) == 2
	})
	if it.First() || it.Error() != nil {
		t.Errorf("the iterator over the first replica sees something: %v", it.Error())
	}
	must(t, it.Close())
	until(t, "the old replica is gone", func() bool {
		now := replicaFolders(t, dir)
		return len(now) == 1 && now[0] != first[0]
	})
}

// A replica that nobody read falls behind what the log still has.
func TestLocalReads_FallBehindRetention(t *testing.T) {
	dir := newDir(t)
	o := quietly()
	o.Retention.MaxBytes = 4 << 20
	leader := open(t, dir, o)
	leads(t, leader)
	set(t, leader, "n", "0")
	db := open(t, dir, locals())
	readsLocally(t, db)
	expect(t, db, "n", "0")
	before, err := db.Status(within(t))
	must(t, err)
	for range 24 {
		must(t, leader.Set(within(t), []byte("a"), pattern(1<<20), pebble.NoSync))
	}
	until(t, "the log begins later", func() bool {
		s, err := leader.Status(within(t))
		must(t, err)
		must(t, leader.Set(within(t), []byte("b"), pattern(100<<10), pebble.NoSync)) // has Pebble flush, and the log go
		return s.FirstSeq > before.LocalApplied+1
	})
	set(t, leader, "n", "1")
	expect(t, db, "n", "1")
	until(t, "the replica is as new as the log", func() bool {
		expect(t, db, "n", "1")
		s, err := db.Status(within(t))
		must(t, err)
		return s.LocalReads && s.LocalApplied == s.Committed
	})
}

// An iterator over a replica sees one point in time whatever becomes of leaders.
func TestLocalReads_IteratorsOutliveLeaders(t *testing.T) {
	dir := newDir(t)
	victim := start(t, config{Dir: dir})
	db := open(t, dir, locals())
	const keys = 3000
	for i := range keys {
		must(t, db.Set(within(t), worldKey(i), pattern(200), pebble.NoSync))
	}
	readsLocally(t, db)
	it, err := db.NewIter(within(t), &party.IterOptions{Strict: true})
	must(t, err)
	must(t, db.DeleteRange(within(t), worldKey(keys/2), worldKey(keys), nil))
	n := 0
	for k := range it.All() {
		if want := worldKey(n); string(k) != string(want) {
			t.Fatalf("key %q in place of %q", k, want)
		}
		if n++; n == 100 {
			victim.kill()
			set(t, db, "z", "1")
		}
	}
	must(t, it.Close())
	if n != keys {
		t.Errorf("%d keys of %d", n, keys)
	}
	if got := scan(t, db, nil); len(got) != keys/2+1 {
		t.Errorf("a new iterator sees %d keys", len(got))
	}
}

func TestLocalReads_OfKilledProcessIsSwept(t *testing.T) {
	dir := newDir(t)
	db := open(t, dir, quietly())
	leads(t, db)
	for range 3 {
		p := start(t, config{Dir: dir, Local: true})
		until(t, "the child has a replica", func() bool { return p.do(request{Op: "status"}).Status.LocalReads })
		p.kill()
	}
	if n := len(replicaFolders(t, dir)); n != 3 {
		t.Fatalf("%d replicas", n)
	}
	must(t, db.Resign(within(t))) // the next term begins with a sweep
	until(t, "the replicas of the dead are gone", func() bool { return len(replicaFolders(t, dir)) == 0 })
}
