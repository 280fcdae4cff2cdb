package party_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

func TestOpen_EightProcessesAtOnce(t *testing.T) {
	const n = 8
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	var all []*process
	for range n {
		all = append(all, launch(t, config{Dir: dir}))
	}
	for _, p := range all {
		if a := receive(t, "a process to open", p.opened()); a.Err != "" {
			t.Fatalf("open: %s", a.Err)
		}
	}
	leaders := make(map[int]bool)
	for i, p := range all {
		p.do(request{Op: "set", Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)})
		leaders[p.do(request{Op: "status"}).Status.LeaderPID] = true
	}
	if len(leaders) != 1 {
		t.Errorf("leaders: %v", leaders)
	}
	for _, p := range all {
		for i := range n {
			if a := p.do(request{Op: "get", Key: fmt.Append(nil, i)}); string(a.Value) != fmt.Sprint(i) {
				t.Errorf("key %d is %q", i, a.Value)
			}
		}
	}
	var closers sync.WaitGroup
	for _, p := range all {
		closers.Go(func() { p.do(request{Op: "close"}) })
	}
	closers.Wait()
	checkConsistent(t, dir, nil)
	if got := plainKeys(t, dir, nil); len(got) != n {
		t.Errorf("%d keys after all have closed: %v", len(got), got)
	}
}

func TestOpen_ManyHandlesInOneProcess(t *testing.T) {
	dir := newDir(t)
	var dbs []*party.DB
	var mu sync.Mutex
	var openers sync.WaitGroup
	for range 4 {
		openers.Go(func() {
			db, err := party.Open(within(t), dir, nil)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			dbs = append(dbs, db)
		})
	}
	openers.Wait()
	for len(dbs) > 0 { // whichever goes first, the others go on
		for i, db := range dbs {
			set(t, db, fmt.Sprint("k", i), fmt.Sprint(len(dbs)))
			for _, other := range dbs {
				expect(t, other, fmt.Sprint("k", i), fmt.Sprint(len(dbs)))
			}
		}
		must(t, dbs[0].Close())
		dbs = dbs[1:]
	}
}

func TestOpen_OneDirectoryUnderManyNames(t *testing.T) {
	dir := newDir(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skipf("cannot make a symbolic link (on Windows it takes developer mode): %v", err)
	}
	t.Chdir(filepath.Dir(dir))
	base := filepath.Base(dir)
	var dbs []*party.DB
	for _, name := range []string{dir, link, base, "./" + base + "/", dir + "/../" + base, filepath.Join(link, "party", "..")} {
		db := open(t, name, nil)
		set(t, db, name, "there")
		dbs = append(dbs, db)
	}
	leading := 0
	for _, db := range dbs {
		expect(t, db, link, "there")
		s, err := db.Status(within(t))
		must(t, err)
		if s.Role == party.Leading {
			leading++
		}
	}
	if leading != 1 {
		t.Errorf("%d handles lead", leading)
	}
	p := start(t, config{Dir: link})
	if a := p.do(request{Op: "get", Key: []byte(dir)}); string(a.Value) != "there" {
		t.Errorf("another process, by the link: %q", a.Value)
	}
}

// TestOpen_LockFileRemoved: a new process follows the leader whose lock file was
// removed, and does not lead beside it.
func TestOpen_LockFileRemoved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows removes no file that is open, as the lock file is: run this on Unix")
	}
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	leader.do(request{Op: "set", Key: []byte("a"), Value: []byte("1")})
	must(t, os.Remove(filepath.Join(dir, "party", "leader.lock")))
	for _, db := range []*party.DB{open(t, dir, nil), open(t, dir, nil)} {
		s, err := db.Status(within(t))
		must(t, err)
		if s.Role != party.Following || s.LeaderPID != leader.pid {
			t.Fatalf("%+v, but process %d leads", s, leader.pid)
		}
		expect(t, db, "a", "1")
		set(t, db, "b", "2")
	}
	leader.kill()
	db := open(t, dir, nil)
	expect(t, db, "b", "2")
	set(t, db, "c", "3")
}

func TestOpen_LockFileRemovedInOneProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows removes no file that is open, as the lock file is: run this on Unix")
	}
	dir := newDir(t)
	leader := open(t, dir, nil)
	must(t, os.Remove(filepath.Join(dir, "party", "leader.lock")))
	follower := open(t, dir, nil)
	hasRole(t, follower, party.Following)
	set(t, follower, "a", "1")
	must(t, leader.Close())
	set(t, follower, "b", "2")
}

// TestOpen_EndpointLost: those who are connected go on; who comes later waits,
// and gets in once there is another leader.
func TestOpen_EndpointLost(t *testing.T) {
	for _, name := range []string{"endpoint", "nats.sock"} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && name == "nats.sock" {
				t.Skip("there is no socket file on Windows, which has named pipes: run this on Unix")
			}
			dir := newDir(t)
			leader, follower := open(t, dir, nil), open(t, dir, nil)
			must(t, os.Remove(filepath.Join(dir, "party", name)))
			set(t, follower, "a", "1")
			opened := make(chan *party.DB, 1)
			go func() {
				db, err := party.Open(within(t), dir, nil)
				if err != nil {
					t.Errorf("open: %v", err)
				}
				opened <- db
			}()
			set(t, follower, "b", "2")
			must(t, leader.Close())
			set(t, follower, "c", "3")
			if late := receive(t, "the handle that came late", opened); late != nil {
				expect(t, late, "c", "3")
				must(t, late.Close())
			}
		})
	}
}

// TestOpen_GarbageEndpoint: what a dead leader, or anything else, has left in the
// endpoint file keeps nobody out.
func TestOpen_GarbageEndpoint(t *testing.T) {
	random := make([]byte, 300)
	_, _ = rand.Read(random)
	for _, c := range []struct{ name, content string }{
		{"random", string(random)},
		{"empty", ""},
		{"huge", `{"magic":"pebbleparty-endpoint","version":3,"address":"` + strings.Repeat("x", 4<<20) + `"}`},
		{"other version", `{"magic":"pebbleparty-endpoint","version":99,"address":"unix:/nowhere"}`},
		{"other magic", `{"magic":"x","version":3}`},
		{"no address", `{"magic":"pebbleparty-endpoint","version":3}`},
		{"nobody there", `{"magic":"pebbleparty-endpoint","version":3,"directory":"DIR","term":9,"pid":1,"address":"unix:nats.sock"}`},
		{"another's address", `{"magic":"pebbleparty-endpoint","version":3,"directory":"DIR","term":9,"pid":1,"address":"unix:/nowhere/nats.sock"}`},
		{"other directory", `{"magic":"pebbleparty-endpoint","version":3,"directory":"0:1","term":9,"pid":1,"address":"unix:nats.sock"}`},
		{"no JSON", "unix:/nowhere\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newDir(t)
			must(t, os.Mkdir(filepath.Join(dir, "party"), 0o700))
			id, err := party.DirectoryID(dir)
			must(t, err)
			content := strings.ReplaceAll(c.content, "DIR", id)
			must(t, os.WriteFile(filepath.Join(dir, "party", "endpoint"), []byte(content), 0o600))
			first, second := open(t, dir, nil), open(t, dir, nil)
			set(t, second, "a", "1")
			expect(t, first, "a", "1")
		})
	}
}

func TestOpen_Fails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	taken := filepath.Join(dir, "taken")
	must(t, os.Mkdir(taken, 0o700))
	must(t, os.WriteFile(filepath.Join(taken, "party"), []byte("x"), 0o600))
	for _, c := range []struct{ name, dir, says string }{
		{"empty name", "", "empty"},
		{"a file", file, "not a directory"},
		{"below a file", filepath.Join(file, "db"), "not a directory"},
		{"party is a file", taken, "not a folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := party.Open(within(t), c.dir, nil)
			if err == nil {
				t.Fatalf("opened: %v", db.Close())
			}
			if runtime.GOOS != "windows" && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want something with %q", err, c.says)
			}
		})
	}
	t.Run("not writable", func(t *testing.T) {
		if os.Geteuid() == 0 || runtime.GOOS == "windows" {
			t.Skip("permissions of folders do not hold for the superuser, nor on Windows: run this as another user on Unix")
		}
		dir := filepath.Join(t.TempDir(), "db")
		must(t, os.Mkdir(dir, 0o500))
		db, err := party.Open(within(t), dir, nil)
		if err == nil {
			t.Fatalf("opened: %v", db.Close())
		}
		want(t, err, os.ErrPermission)
	})
	t.Run("dead context", func(t *testing.T) {
		dir := newDir(t)
		open(t, dir, nil)
		ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
		defer cancel()
		// Nothing says that Open must fail if it needs no waiting.
		if db, err := party.Open(ctx, dir, nil); err == nil {
			must(t, db.Close())
		} else {
			want(t, err, context.DeadlineExceeded)
		}
	})
}

// TestOpen_LongPaths: two directories whose names agree in all that fits into the
// name of a unix socket.
func TestOpen_LongPaths(t *testing.T) {
	base := t.TempDir()
	for len(base) < 200 {
		base = filepath.Join(base, strings.Repeat("long", 12))
	}
	var dbs []*party.DB
	for _, name := range []string{"one", "two"} {
		dir := filepath.Join(base, name)
		leader, follower := open(t, dir, nil), open(t, dir, nil)
		hasRole(t, follower, party.Following)
		set(t, follower, "name", name)
		dbs = append(dbs, leader, follower)
	}
	for i, db := range dbs {
		expect(t, db, "name", []string{"one", "two"}[i/2])
	}
	p := start(t, config{Dir: filepath.Join(base, "two")})
	if a := p.do(request{Op: "get", Key: []byte("name")}); string(a.Value) != "two" {
		t.Errorf("another process reads %q", a.Value)
	}
	must(t, dbs[2].Close())
	must(t, dbs[3].Close())
	p.do(request{Op: "set", Key: []byte("name"), Value: []byte("2")})
}

// TestOpen_FindsLeaderWhoseFilesWereRemoved: whatever cleans up in the folder, a
// new process need not wait for the leader to change, and those that are there
// notice nothing.
func TestOpen_FindsLeaderWhoseFilesWereRemoved(t *testing.T) {
	for _, name := range []string{"endpoint", "nats.sock"} {
		t.Run(name, func(t *testing.T) {
			if name == "nats.sock" && runtime.GOOS == "windows" {
				t.Skip("there is no socket file on Windows, which has named pipes: run this on Unix")
			}
			dir := newDir(t)
			open(t, dir, nil)
			follower := open(t, dir, nil)
			hasRole(t, follower, party.Following)
			must(t, os.Remove(filepath.Join(dir, "party", name)))
			p := start(t, config{Dir: dir})
			p.do(request{Op: "set", Key: []byte("k"), Value: []byte(name)})
			expect(t, follower, "k", name)
		})
	}
}

// TestOpen_ContextCancelled: nobody finds a leader that has lost its endpoint
// file, and Open ends with its context.
func TestOpen_ContextCancelled(t *testing.T) {
	dir := newDir(t)
	open(t, dir, nil)
	must(t, os.Remove(filepath.Join(dir, "party", "endpoint")))
	ctx, cancel := context.WithCancel(within(t))
	opened := make(chan error, 1)
	go func() {
		db, err := party.Open(ctx, dir, nil)
		if err == nil {
			err = errors.Join(errors.New("opened"), db.Close())
		}
		opened <- err
	}()
	cancel()
	err := receive(t, "Open to end with its context", opened)
	want(t, err, context.Canceled)
}
