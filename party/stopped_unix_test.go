//go:build unix

package party_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/pebbleparty/pebbleparty/party"
)

// stop stops the process with SIGSTOP; the clean-up lets it go on.
func (p *process) stop() {
	p.t.Helper()
	must(p.t, unix.Kill(p.pid, unix.SIGSTOP))
	p.t.Cleanup(p.cont)
	var status unix.WaitStatus
	until(p.t, "the child is stopped", func() bool {
		pid, err := unix.Wait4(p.pid, &status, unix.WUNTRACED|unix.WNOHANG, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			p.t.Fatalf("wait for child %d to stop: %v", p.pid, err)
		}
		return pid == p.pid && status.Stopped()
	})
}

// cont lets a stopped process go on.
func (p *process) cont() {
	if p.cmd.ProcessState == nil { // else the pid may be another's by now
		_ = unix.Kill(p.pid, unix.SIGCONT)
	}
}

// short is for a call that can only end with its context.
const short = 100 * time.Millisecond

// stoppedCalls makes calls of all kinds and sizes while the leader is stopped:
// each ends with its context. It returns how many merges of "maybe" it made,
// whose outcome is unknown.
func stoppedCalls(t *testing.T, db *party.DB, pid int) (merges int) {
	t.Helper()
	k := []byte("maybe")
	var large pebble.Batch
	must(t, large.Set([]byte("large"), pattern(3<<20), nil))
	must(t, large.Merge(k, []byte("1"), nil))
	calls := map[string]func(ctx context.Context) error{
		"Get":     func(ctx context.Context) error { _, err := db.Get(ctx, k); return err },
		"GetMany": func(ctx context.Context) error { _, err := db.GetMany(ctx, [][]byte{k, k}); return err },
		"a large Get": func(ctx context.Context) error {
			_, err := db.Get(ctx, pattern(2<<20))
			return err
		},
		"Merge":        func(ctx context.Context) error { return db.Merge(ctx, k, []byte("1"), nil) },
		"NoSync Merge": func(ctx context.Context) error { return db.Merge(ctx, k, []byte("1"), pebble.NoSync) },
		"Set of 900 KB": func(ctx context.Context) error {
			return db.Set(ctx, []byte("large 1"), pattern(900<<10), nil)
		},
		"Apply of 3 MiB": func(ctx context.Context) error { _, err := db.Apply(ctx, &large, nil); return err },
		"CompareAndSwap": func(ctx context.Context) error {
			_, err := db.CompareAndSwap(ctx, []byte("swapped"), nil, []byte("1"), nil)
			return err
		},
		"NewIter": func(ctx context.Context) error {
			it, err := db.NewIter(ctx, nil)
			if err != nil {
				return err
			}
			it.First()
			return it.Close()
		},
	}
	merges = 3
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(calls))
	for name, call := range calls {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), short)
			defer cancel()
			results <- result{name, call(ctx)}
		}()
	}
	for range calls {
		r := receive(t, "a call to end with its context", results)
		if !errors.Is(r.err, context.DeadlineExceeded) || !strings.Contains(r.err.Error(), strconv.Itoa(pid)) {
			t.Errorf("%s: %v, want the end of its context, with pid %d", r.name, r.err, pid)
		}
	}
	ctx, cancel := context.WithCancel(within(t))
	canceled := make(chan error, 1)
	go func() { _, err := db.Get(ctx, k); canceled <- err }()
	cancel()
	want(t, receive(t, "a call to end with its context", canceled), context.Canceled)
	return merges
}

// notResponding checks what Status says while the leader is stopped.
func notResponding(t *testing.T, db *party.DB, role party.Role, pid int) {
	t.Helper()
	s, err := db.Status(within(t))
	must(t, err)
	if s.Responding || s.Role != role || s.LeaderPID != pid || s.Term == 0 || s.Committed == 0 || len(s.Database) != 32 {
		t.Errorf("process %d is stopped, but the status is %+v", pid, s)
	}
}

// TestDB_LeaderStopped: while the leader is stopped nothing goes on and nothing
// hangs; when it goes on so does all.
func TestDB_LeaderStopped(t *testing.T) {
	s := newStorm(t, 1)
	leader := s.victims[s.victimLeads()]
	follower := open(t, s.dir, config{Sum: true}.options())
	hasRole(t, follower, party.Following)
	doomed := open(t, s.dir, config{Sum: true}.options())
	hasRole(t, doomed, party.Following)
	before, err := follower.Status(within(t))
	must(t, err)
	merges := 0
	for range 2 {
		s.progress(20)
		leader.stop()
		merges += stoppedCalls(t, follower, leader.pid)
		notResponding(t, follower, party.Following, leader.pid)
		notResponding(t, s.db, party.Following, leader.pid) // with calls under way all the time
		ctx, cancel := context.WithTimeout(context.Background(), short)
		db, err := party.Open(ctx, s.dir, config{Sum: true}.options())
		cancel()
		if err == nil {
			t.Fatalf("opened: %v", db.Close())
		}
		want(t, err, context.DeadlineExceeded)
		if !strings.Contains(err.Error(), fmt.Sprintf("pid %d ", leader.pid)) {
			t.Errorf("%v does not name process %d", err, leader.pid)
		}
		closeDB(t, doomed) // does not wait for the leader
		var waiting sync.WaitGroup
		waiting.Go(func() { // has all the time it needs
			if err := follower.Merge(within(t), []byte("sure"), []byte("1"), nil); err != nil {
				t.Errorf("a call that outlasts the stop: %v", err)
			}
		})
		leader.cont()
		waiting.Wait()
		s.progress(20)
	}
	after, err := follower.Status(within(t))
	must(t, err)
	if !after.Responding || after.Term != before.Term || after.LeaderPID != leader.pid {
		t.Errorf("a stop changed the leader: %+v, then %+v", before, after)
	}
	expect(t, follower, "sure", "2")
	switch v, err := follower.Get(within(t), []byte("maybe")); {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		t.Error(err)
	default:
		if n, err := strconv.Atoi(string(v)); err != nil || n > merges {
			t.Errorf("%d merges had the effect of %q", merges, v)
		}
	}
	s.finish()
}

// TestDB_StoppedLeaderKilled: those who wait for a stopped leader elect another
// once it is killed.
func TestDB_StoppedLeaderKilled(t *testing.T) {
	s := newStorm(t, 2)
	i := s.victimLeads()
	s.progress(20)
	s.victims[i].stop()
	waiting := make(chan error, 1)
	go func() { waiting <- s.db.Set(within(t), []byte("waited"), []byte("1"), nil) }()
	notResponding(t, s.db, party.Following, s.victims[i].pid)
	s.drop(i).kill()
	must(t, receive(t, "a call that waits for the next leader", waiting))
	s.progress(20)
	s.finish()
}

// TestDB_FollowerStopped: followers are stopped while they write, and while
// large replies are on their way to them. The others do not notice, and they go
// on when they may.
func TestDB_FollowerStopped(t *testing.T) {
	s := newStorm(t, 1)
	leader := s.victims[s.victimLeads()]
	readers := []*process{start(t, config{Dir: s.dir, Sum: true}), start(t, config{Dir: s.dir, Sum: true})}
	var reads []<-chan answer
	for i, size := range []int{900 << 10, 3 << 20} { // in one message, and in pieces
		key := fmt.Append(nil, "value", i)
		readers[i].do(request{Op: "fill", Key: key, N: size, NoSync: true})
		reads = append(reads, readers[i].send(request{Op: "read", Key: key, N: 3}))
	}
	acks := func(p *process) int { return p.do(request{Op: "acks"}).N }
	before, err := s.db.Status(within(t))
	must(t, err)
	for range 2 {
		for _, p := range readers {
			from := acks(p)
			until(t, "a follower reads", func() bool { return acks(p) > from })
		}
		stopped := append([]*process{s.writers[0]}, readers...)
		for _, p := range stopped {
			p.stop()
		}
		s.progress(100)
		from := acks(s.writers[1])
		until(t, "another process writes", func() bool { return acks(s.writers[1]) > from+20 })
		for _, p := range stopped {
			p.cont()
		}
		from = acks(s.writers[0])
		until(t, "the stopped follower writes again", func() bool { return acks(s.writers[0]) > from })
	}
	for i, p := range readers {
		from := acks(p)
		until(t, "the stopped follower reads again", func() bool { return acks(p) > from })
		p.do(request{Op: "stop"})
		if a := receive(t, "a follower to end its reads", reads[i]); a.Err != "" {
			t.Errorf("a read of a follower that was stopped failed: %s", a.Err)
		}
	}
	after, err := s.db.Status(within(t))
	must(t, err)
	if after.Term != before.Term || after.LeaderPID != leader.pid {
		t.Errorf("stopped followers changed the leader: %+v, then %+v", before, after)
	}
	s.finish()
}

// TestDB_LeaderLeavesAProcessBehind: a process that the leader has started lives
// on when the leader is killed. It holds nothing of the leader's.
func TestDB_LeaderLeavesAProcessBehind(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	leader.do(request{Op: "set", Key: []byte("a"), Value: []byte("1")})
	pid := leader.do(request{Op: "spawn"}).N
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	leader.kill()
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("the process that the leader started is gone: %v", err)
	}
	db := open(t, dir, nil)
	leads(t, db)
	expect(t, db, "a", "1")
	set(t, db, "b", "2")
	s, err := db.Status(within(t))
	must(t, err)
	if s.LeaderPID != os.Getpid() {
		t.Errorf("%+v", s)
	}
	must(t, db.Close())
	if got := plainKeys(t, dir, nil); len(got) != 2 {
		t.Errorf("plain Pebble finds %v", got)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("the process that the leader started ended too soon: %v", err)
	}
}

func TestSnapshot_ContextEnds(t *testing.T) {
	dir := newDir(t)
	p := start(t, config{Dir: dir})
	db := open(t, dir, quietly())
	hasRole(t, db, party.Following)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := db.NewSnapshot(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	p.stop()
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	if _, err := db.NewSnapshot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a stopped leader: %v", err)
	}
	if left := replicaFolders(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	p.cont()
	sameKeys(t, "after it went on", contents(t, take(t, db)), map[string]string{})
}

// TestLogReader_StoppedLeader: a leader that is stopped is still one, and what is not in its log yet may come. Of a
// dead one it is missing.
func TestLogReader_StoppedLeader(t *testing.T) {
	dir := t.TempDir() // left as the kill left it
	p := start(t, config{Dir: dir})
	p.do(request{Op: "set", Key: []byte("early")})
	names, err := filepath.Glob(filepath.Join(dir, "party", "log", "*.log"))
	must(t, err)
	early, err := os.ReadFile(names[0])
	must(t, err)
	p.do(request{Op: "set", Key: []byte("late")})
	p.stop()
	must(t, os.Rename(names[0], names[0]+".whole"))
	must(t, os.WriteFile(names[0], early, 0o600))
	for range 3 {
		wantLog(t, dir, 0, "1 of term 1: ", "2 of term 1: Set early=")
	}
	p.kill()
	l, err := party.OpenLog(dir, 0)
	must(t, err)
	lines, err := logLines(t, l)
	want(t, err, party.ErrCorrupt)
	if len(lines) != 2 {
		t.Errorf("%q", lines)
	}
	must(t, l.Close())
}
