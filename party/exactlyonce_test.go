package party_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// storm is what the tests of exactly-once have in common: writers that are
// never killed count what was acknowledged to them, in this process and in two
// others; victims, which mostly lead, write journals and may be killed at any
// moment.
type storm struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	db      *party.DB // in this process
	writers []*process
	victims []*process
	dead    []*process

	acks    atomic.Int64 // of db
	stop    chan struct{}
	mine    chan []int
	theirs  []<-chan answer
	journal []<-chan answer
}

const writerGoroutines = 4

func newStorm(t *testing.T, victims int) *storm {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("PARTY_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d (set PARTY_TEST_SEED to use it again)", seed)
	opts := config{Sum: true}.options()
	s := &storm{t: t, dir: newDirFor(t, opts.Pebble), rng: rand.New(rand.NewPCG(seed, 0)), stop: make(chan struct{}), mine: make(chan []int, 1)}
	for range victims {
		s.addVictim()
	}
	for i := range 2 {
		w := start(t, config{Dir: s.dir, Sum: true})
		s.writers = append(s.writers, w)
		s.theirs = append(s.theirs, w.send(request{Op: "count", N: writerGoroutines, Seed: s.rng.Uint64(), Key: fmt.Appendf(nil, "w%d", i)}))
	}
	s.db = open(t, s.dir, opts)
	mySeed := s.rng.Uint64()
	go func() {
		counts, err := countInto(context.Background(), s.db, writerGoroutines, mySeed, "parent", s.stop, &s.acks)
		if err != nil {
			t.Errorf("a call failed in this process: %v", err)
		}
		s.mine <- counts
	}()
	return s
}

func (s *storm) addVictim() {
	p := start(s.t, config{Dir: s.dir, Sum: true})
	s.victims = append(s.victims, p)
	s.journal = append(s.journal, p.send(request{Op: "journal", Key: journalOf(p)}))
}

func journalOf(p *process) []byte { return fmt.Appendf(nil, "journal-%d", p.pid) }

// progress waits until n more of this process's writes were acknowledged.
func (s *storm) progress(n int) {
	s.t.Helper()
	from := s.acks.Load()
	until(s.t, fmt.Sprintf("%d more writes are acknowledged", n), func() bool { return s.acks.Load() >= from+int64(n) })
}

// leader returns the pid of the leader.
func (s *storm) leader() int {
	s.t.Helper()
	var pid int
	until(s.t, "somebody leads", func() bool {
		st, err := s.db.Status(within(s.t))
		must(s.t, err)
		pid = st.LeaderPID
		return st.Responding
	})
	return pid
}

// victimLeads has writers resign until a victim leads, and returns its index.
func (s *storm) victimLeads() int {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		pid := s.leader()
		for i, p := range s.victims {
			if p.pid == pid {
				return i
			}
		}
		if pid == os.Getpid() {
			must(s.t, s.db.Resign(within(s.t)))
		}
		for _, w := range s.writers {
			if w.pid == pid {
				w.do(request{Op: "resign"})
			}
		}
	}
	s.t.Fatal("no victim ever led")
	return 0
}

func (s *storm) drop(i int) *process {
	p := s.victims[i]
	s.victims = append(s.victims[:i:i], s.victims[i+1:]...)
	s.dead = append(s.dead, p)
	return p
}

// finish stops everybody and compares the database with what was acknowledged.
func (s *storm) finish() {
	s.t.Helper()
	close(s.stop)
	totals := make([]int, 2*counters)
	check := func(name string, counts []int) {
		for i := range totals {
			totals[i] += counts[i]
		}
		for g, n := range counts[2*counters:] {
			var keys [][]byte
			for i := range n + 1 {
				keys = append(keys, fmt.Appendf(nil, "set-%s-%d-%06d", name, g, i))
			}
			values, err := s.db.GetMany(within(s.t), keys)
			must(s.t, err)
			for i, v := range values {
				if (v != nil) != (i < n) {
					s.t.Errorf("key %s: there is %t, acknowledged %t", keys[i], v != nil, i < n)
				}
			}
		}
	}
	check("parent", receive(s.t, "this process's writers", s.mine))
	for i, w := range s.writers {
		w.do(request{Op: "stop"})
		a := receive(s.t, "a writer's counts", s.theirs[i])
		if a.Err != "" {
			s.t.Fatalf("a call failed in a writer: %s", a.Err)
		}
		check(fmt.Sprintf("w%d", i), a.Counts)
	}
	for _, p := range s.victims {
		p.do(request{Op: "stop"})
		p.end()
	}
	writes := 0
	for i, n := range totals {
		key := fmt.Sprintf("cas%d", i)
		if i >= counters {
			key = fmt.Sprintf("merge%d", i-counters)
		}
		if n > 0 {
			expect(s.t, s.db, key, strconv.Itoa(n))
		}
		writes += n
	}
	for _, p := range append(s.dead, s.victims...) {
		s.checkJournal(p)
	}
	s.t.Logf("%d increments", writes)
}

// checkJournal: all that was reported is there, and of what was not, the one
// that was under way at most.
func (s *storm) checkJournal(p *process) {
	s.t.Helper()
	n := int(p.journaled.Load())
	var keys [][]byte
	for i := range n + 3 {
		keys = append(keys, fmt.Appendf(nil, "%s-%06d", journalOf(p), i))
	}
	values, err := s.db.GetMany(within(s.t), keys)
	must(s.t, err)
	for i, v := range values {
		// A report may have been lost in the pipe with its writer, so one more
		// acknowledged key is possible, and one more that was under way.
		if v == nil && i < n || v != nil && i > n+1 {
			s.t.Errorf("key %s: there is %t, %d were reported", keys[i], v != nil, n)
		}
	}
}

func TestDB_SurvivesKilledLeaders(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 8
	}
	s := newStorm(t, 3)
	handed := 0
	for k := range kills {
		i := s.victimLeads()
		s.progress(s.rng.IntN(40))
		// Sometimes the next leader dies with it, as it begins.
		s.drop(i).kill()
		if s.rng.IntN(8) == 0 {
			if pid := s.leader(); pid == os.Getpid() {
				handed++
			} else {
				for j, p := range s.victims {
					if p.pid == pid {
						s.drop(j).kill()
						s.addVictim()
						break
					}
				}
			}
		}
		s.addVictim()
		if k%10 == 9 {
			t.Logf("%d kills, %d writes acknowledged here", k+1, s.acks.Load())
		}
	}
	s.progress(20)
	s.finish()
}

func TestDB_SurvivesHandOvers(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	s := newStorm(t, 2)
	for range rounds {
		pid := s.leader()
		s.progress(s.rng.IntN(40))
		if pid == os.Getpid() {
			must(t, s.db.Resign(within(t)))
			continue
		}
		for _, w := range s.writers {
			if w.pid == pid {
				w.do(request{Op: "resign"})
			}
		}
		for i, p := range s.victims {
			if p.pid != pid {
				continue
			}
			if s.rng.IntN(2) == 0 {
				p.do(request{Op: "resign"})
				break
			}
			s.drop(i).end() // its journal ends with ErrClosed at most
			s.addVictim()
			break
		}
	}
	s.progress(20)
	s.finish()
}

// TestDB_SurvivesHandOverToItself: a handle that resigns alone leads again, and
// its own calls go on.
func TestDB_SurvivesHandOverToItself(t *testing.T) {
	db := open(t, newDirFor(t, config{Sum: true}.options().Pebble), config{Sum: true}.options())
	stop := make(chan struct{})
	var acks atomic.Int64
	var counts []int
	var err error
	var writers sync.WaitGroup
	writers.Go(func() {
		counts, err = countInto(context.Background(), db, writerGoroutines, 1, "self", stop, &acks)
	})
	for range 5 {
		from := acks.Load()
		until(t, "some writes are acknowledged", func() bool { return acks.Load() > from+10 })
		must(t, db.Resign(within(t)))
	}
	close(stop)
	writers.Wait()
	must(t, err)
	for i := range counters {
		if n := counts[i]; n > 0 {
			expect(t, db, fmt.Sprintf("cas%d", i), strconv.Itoa(n))
		}
		if n := counts[counters+i]; n > 0 {
			expect(t, db, fmt.Sprintf("merge%d", i), strconv.Itoa(n))
		}
	}
}
