package party_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/party"
)

// take makes a snapshot that is closed in the clean-up.
func take(t testing.TB, db *party.DB) *party.Snapshot {
	t.Helper()
	s, err := db.NewSnapshot(within(t))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// contents returns all keys and values of a snapshot.
func contents(t testing.TB, s *party.Snapshot) map[string]string {
	t.Helper()
	it, err := s.NewIter(within(t), nil)
	must(t, err)
	m := make(map[string]string)
	for k, v := range it.All() {
		m[string(k)] = string(v)
	}
	must(t, it.Close())
	return m
}

func sameKeys(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d keys, want %d", what, len(got), len(want))
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Fatalf("%s: key %.40q is %.40q (there: %t), want %.40q", what, k, g, ok, v)
		}
	}
}

// both runs a test with a handle that leads and with one that follows.
func both(t *testing.T, o func() *party.Options, test func(t *testing.T, dir string, db *party.DB)) {
	for _, role := range []party.Role{party.Leading, party.Following} {
		t.Run(role.String(), func(t *testing.T) {
			dir := newDirFor(t, o().Pebble)
			db := open(t, dir, o())
			leads(t, db)
			if role == party.Following {
				db = open(t, dir, o())
				hasRole(t, db, party.Following)
			}
			test(t, dir, db)
		})
	}
}

func quietly() *party.Options { return &party.Options{Pebble: &pebble.Options{Logger: silent{}}} }

func TestSnapshot_IsOnePointInTime(t *testing.T) {
	both(t, quietly, func(t *testing.T, dir string, db *party.DB) {
		set(t, db, "a", "1")
		set(t, db, "b", "")
		s := take(t, db)
		seq, err := db.Apply(within(t), &pebble.Batch{}, nil)
		must(t, err)
		if s.Seq() != seq {
			t.Errorf("the snapshot is at %d, the log at %d", s.Seq(), seq)
		}
		set(t, db, "a", "2")
		must(t, db.Delete(within(t), []byte("b"), nil))
		set(t, db, "c", "3")
		later := take(t, db)
		sameKeys(t, "the first", contents(t, s), map[string]string{"a": "1", "b": ""})
		sameKeys(t, "the second", contents(t, later), map[string]string{"a": "2", "c": "3"})
		values, err := s.GetMany(within(t), [][]byte{[]byte("a"), []byte("b"), []byte("c"), []byte(apply.ReservedPrefix + "id\x00")})
		must(t, err)
		if string(values[0]) != "1" || values[1] == nil || len(values[1]) != 0 || values[2] != nil || values[3] != nil {
			t.Errorf("values %q", values)
		}
		if _, err := s.Get(within(t), []byte("c")); !errors.Is(err, pebble.ErrNotFound) {
			t.Errorf("a key that came later: %v", err)
		}
		if ok, err := s.Has(within(t), []byte("b")); !ok || err != nil {
			t.Errorf("Has: %t, %v", ok, err)
		}
		it, err := s.NewIter(within(t), &party.IterOptions{LowerBound: []byte("b")})
		must(t, err)
		if !it.Last() || string(it.Key()) != "b" || it.Prev() || it.SeekGE([]byte("c")) || !it.SeekLT([]byte("c")) {
			t.Errorf("the iterator is at %q, %v", it.Key(), it.Error())
		}
		must(t, it.Close())
		if n := len(replicaFolders(t, dir)); n != 1 {
			t.Errorf("%d replicas for the snapshots of one handle", n)
		}
	})
}

func TestSnapshot_ClosedFails(t *testing.T) {
	both(t, quietly, func(t *testing.T, dir string, db *party.DB) {
		set(t, db, "a", "1")
		s, other := take(t, db), take(t, db)
		it, err := s.NewIter(within(t), nil)
		must(t, err)
		must(t, s.Close())
		must(t, s.Close())
		if _, err := s.Get(within(t), []byte("a")); !errors.Is(err, party.ErrClosed) {
			t.Errorf("Get: %v", err)
		}
		if _, err := s.NewIter(within(t), nil); !errors.Is(err, party.ErrClosed) {
			t.Errorf("NewIter: %v", err)
		}
		if it.SeekGE([]byte("a")) || !errors.Is(it.Error(), party.ErrClosed) {
			t.Errorf("iterator: %v", it.Error())
		}
		sameKeys(t, "another snapshot", contents(t, other), map[string]string{"a": "1"})
		must(t, db.Close())
		if _, err := other.Get(within(t), []byte("a")); !errors.Is(err, party.ErrClosed) {
			t.Errorf("Get after DB.Close: %v", err)
		}
		if _, err := db.NewSnapshot(within(t)); !errors.Is(err, party.ErrClosed) {
			t.Errorf("NewSnapshot after DB.Close: %v", err)
		}
		if left := replicaFolders(t, dir); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	})
}

func TestSnapshot_AgreesWithLogAmongWriters(t *testing.T) {
	o := func() *party.Options {
		o := quietly()
		o.Pebble.Comparer, o.Pebble.Merger, o.Pebble.MemTableSize = backwards, sum, 64<<10 // flushed all the time
		return o
	}
	both(t, o, func(t *testing.T, dir string, db *party.DB) {
		log := newReplay(t, dir, o().Pebble)
		const rounds, perRound = 20, 40 // so much is written beside each snapshot, at least
		var writers sync.WaitGroup
		var last sync.Map // writer → number of its newest acknowledged key
		var begin [4]chan struct{}
		for w := range begin {
			begin[w] = make(chan struct{}, rounds)
			writers.Go(func() {
				for i := range rounds * perRound {
					if i%perRound == 0 {
						<-begin[w]
					}
					var b pebble.Batch
					_ = b.Set(fmt.Appendf(nil, "w%d-%06d", w, i), bytes.Repeat([]byte{'x'}, 300), nil)
					_ = b.Merge([]byte("sum"), []byte("1"), nil)
					if i%7 == 3 {
						_ = b.DeleteRange(fmt.Appendf(nil, "w%d-%06d", w, i-1), fmt.Appendf(nil, "w%d-%06d", w, i-3), nil)
					}
					if _, err := db.Apply(context.Background(), &b, pebble.NoSync); err != nil {
						t.Errorf("writer: %v", err)
						return
					}
					last.Store(w, i)
				}
			})
		}
		for range rounds {
			for _, b := range begin {
				b <- struct{}{}
			}
			var before [4]int
			for w := range before {
				if i, ok := last.Load(w); ok {
					before[w] = i.(int)
				}
			}
			s, err := db.NewSnapshot(within(t))
			must(t, err)
			got := contents(t, s)
			sameKeys(t, fmt.Sprintf("at %d", s.Seq()), got, log.upTo(t, s.Seq()))
			for w, i := range before {
				if _, ok := got[fmt.Sprintf("w%d-%06d", w, i)]; !ok && i > 0 && i%7 > 3 {
					t.Errorf("key %d of writer %d was acknowledged before", i, w)
				}
			}
			must(t, s.Close())
		}
		writers.Wait()
	})
}

func TestSnapshot_OutlivesLeaders(t *testing.T) {
	dir := newDir(t)
	first := start(t, config{Dir: dir})
	for i := range 300 {
		first.do(request{Op: "set", Key: fmt.Appendf(nil, "k%03d", i), Value: []byte("old"), NoSync: i%50 > 0})
	}
	var followers []*process
	for range 5 {
		followers = append(followers, start(t, config{Dir: dir}))
	}
	holder := start(t, config{Dir: dir})
	want := holder.do(request{Op: "snapshot"})
	if want.N != 300 {
		t.Fatalf("%d keys", want.N)
	}
	for i, leader := range append([]*process{first}, followers[:4]...) {
		// It leads, whoever that is now: the holder must not.
		_ = leader
		s := holder.do(request{Op: "status"}).Status
		if s.LeaderPID == holder.pid {
			holder.do(request{Op: "resign"})
			s = holder.do(request{Op: "status"}).Status
		}
		for _, p := range append([]*process{first}, followers...) {
			if p.pid == s.LeaderPID {
				p.kill()
			}
		}
		holder.do(request{Op: "set", Key: fmt.Appendf(nil, "k%03d", i), Value: []byte("new")})
		holder.do(request{Op: "set", Key: fmt.Appendf(nil, "n%03d", i), Value: []byte("new")})
		if got := holder.do(request{Op: "look"}); got.N != want.N || !bytes.Equal(got.Value, want.Value) {
			t.Fatalf("after leader %d: %d keys with digest %x, were %d with %x", i, got.N, got.Value, want.N, want.Value)
		}
	}
	if got := holder.do(request{Op: "snapshot"}); got.N != 305 {
		t.Errorf("a new snapshot has %d keys", got.N)
	}
}

func TestSnapshot_ManyAtOnce(t *testing.T) {
	both(t, quietly, func(t *testing.T, dir string, db *party.DB) {
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := range 20 {
					key := fmt.Appendf(nil, "k%d-%d", g, i)
					if err := db.Set(context.Background(), key, key, pebble.NoSync); err != nil {
						t.Errorf("set: %v", err)
						return
					}
					s, err := db.NewSnapshot(context.Background())
					if err != nil {
						t.Errorf("snapshot: %v", err)
						return
					}
					if v, err := s.Get(context.Background(), key); err != nil || !bytes.Equal(v, key) {
						t.Errorf("key %s, written before: %q, %v", key, v, err)
					}
					if g%2 == 0 {
						if err := s.Close(); err != nil {
							t.Errorf("close: %v", err)
						}
					}
				}
			})
		}
		all.Wait()
		must(t, db.Close()) // with those that are open
		if left := replicaFolders(t, dir); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	})
}

func TestSnapshot_ClosesWithHandleUnderWay(t *testing.T) {
	both(t, quietly, func(t *testing.T, dir string, db *party.DB) {
		set(t, db, "a", "1")
		begun := make(chan struct{}, 100)
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				for {
					s, err := db.NewSnapshot(context.Background())
					if err != nil {
						if !errors.Is(err, party.ErrClosed) {
							t.Errorf("snapshot: %v", err)
						}
						return
					}
					select {
					case begun <- struct{}{}:
					default:
					}
					if it, err := s.NewIter(context.Background(), nil); err == nil {
						for range it.All() {
						}
						if err := it.Close(); err != nil && !errors.Is(err, party.ErrClosed) {
							t.Errorf("iterator: %v", err)
						}
					}
				}
			})
		}
		for range 10 {
			receive(t, "snapshots", begun)
		}
		must(t, db.Close())
		all.Wait()
		if left := replicaFolders(t, dir); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	})
}

// The leader's own goroutines end with the term though a checkpoint is asked for
// all the time, and nobody is told of the end.
func TestSnapshot_AcrossResigns(t *testing.T) {
	dir := newDir(t)
	dbs := []*party.DB{open(t, dir, quietly()), open(t, dir, quietly()), open(t, dir, quietly())}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, db := range dbs {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// A handle of its own each time: the first snapshot of a handle is the
				// one that needs the leader.
				once, err := party.Open(context.Background(), dir, quietly())
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				key := fmt.Appendf(nil, "k%d-%d", i, n)
				err = db.Set(context.Background(), key, key, pebble.NoSync)
				var s *party.Snapshot
				if err == nil {
					s, err = once.NewSnapshot(context.Background())
				}
				if err == nil {
					var v []byte
					if v, err = s.Get(context.Background(), key); err == nil && !bytes.Equal(v, key) {
						t.Errorf("key %s is %q", key, v)
					}
				}
				if err := errors.Join(err, once.Close()); err != nil {
					t.Errorf("snapshot: %v", err)
					return
				}
			}
		})
	}
	for range 25 {
		for _, db := range dbs {
			must(t, db.Resign(within(t)))
		}
	}
	close(stop)
	all.Wait()
	for _, db := range dbs {
		closeDB(t, db)
	}
	if left := replicaFolders(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
