//go:build unix

package party_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pebbleparty/pebbleparty/apply"
)

// crew are processes that share a directory. Each does one thing; one that is
// killed is started again and goes on.
type crew struct {
	t     testing.TB
	dir   string
	procs []*process
	jobs  []request
	done  []<-chan answer
}

func (c *crew) hire(job request) {
	c.t.Helper()
	c.procs, c.jobs, c.done = append(c.procs, nil), append(c.jobs, job), append(c.done, nil)
	c.begin(len(c.procs) - 1)
}

func (c *crew) begin(i int) {
	c.t.Helper()
	c.procs[i] = start(c.t, config{Dir: c.dir})
	c.done[i] = c.procs[i].send(c.jobs[i])
}

// leader returns which of the processes leads, -1 if none can be seen to.
func (c *crew) leader() int {
	var e struct{ PID int }
	b, err := os.ReadFile(filepath.Join(c.dir, "party", "endpoint"))
	if err == nil && json.Unmarshal(b, &e) == nil {
		for i, p := range c.procs {
			if p.pid == e.PID {
				return i
			}
		}
	}
	return -1
}

// killLeader kills whoever leads and starts that process again.
func (c *crew) killLeader() {
	c.t.Helper()
	who := -1
	until(c.t, "somebody leads", func() bool { who = c.leader(); return who >= 0 })
	c.procs[who].kill()
	c.begin(who)
}

// halt stops a process that does not lead; one that turns out to lead goes on.
func (c *crew) halt(i int) {
	c.t.Helper()
	until(c.t, "a process is stopped that does not lead", func() bool {
		if l := c.leader(); l < 0 || l == i {
			if l == i {
				c.killLeader()
			}
			return false
		}
		must(c.t, unix.Kill(c.procs[i].pid, unix.SIGSTOP))
		// It may have begun to lead in between, and would keep everybody waiting.
		<-time.After(20 * time.Millisecond)
		if l := c.leader(); l >= 0 && l != i {
			return true
		}
		must(c.t, unix.Kill(c.procs[i].pid, unix.SIGCONT))
		return false
	})
}

// entries reads all batches from the files of the log: sequence number and hash.
func entries(t testing.TB, dir string) (all [][2]uint64) {
	t.Helper()
	eachEntry(t, dir, func(seq uint64, e apply.Entry) {
		if !e.Cursor {
			all = append(all, [2]uint64{seq, hashOps(e.Repr)})
		}
	})
	return all
}

// Three processes write, three subscribe, from the start, from now and from the
// middle; one of those is stopped for seconds; whoever leads is killed, again and
// again. Each subscriber sees exactly what is in the log, and that has all that
// was acknowledged.
func TestSubscription_SeesEverythingWhileLeadersDie(t *testing.T) {
	events, kills, stopped := 100_000, 50, 3*time.Second
	if testing.Short() {
		events, kills, stopped = 5_000, 6, 200*time.Millisecond
	}
	dir, journals := newDir(t), t.TempDir()
	c := &crew{t: t, dir: dir}
	path := func(name string) []byte { return []byte(filepath.Join(journals, name)) }
	tail := func(name string, from int) {
		c.hire(request{Op: "tail", Key: []byte("the end"), Value: path(name), N: from})
	}
	tail("first", 1)
	for i := range 3 {
		c.hire(request{Op: "pump", N: 8, Value: path(fmt.Sprintf("writer %d", i))})
	}
	tail("now", 0)
	const middle = 500
	until(t, "something is written", func() bool {
		s := c.procs[0].do(request{Op: "status"}).Status
		return s.Committed > middle
	})
	tail("middle", middle)
	late := len(c.procs) - 1

	rng := rand.New(rand.NewPCG(1, 2))
	seen := func() int {
		fi, err := os.Stat(string(path("first")))
		must(t, err)
		return int(fi.Size() / pairSize)
	}
	for kill := 0; kill < kills || seen() < events; kill++ {
		if kill == kills/3 {
			c.halt(late)
			<-time.After(stopped)
			c.procs[late].cont()
		}
		<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond)
		if kill < kills {
			c.killLeader()
		}
	}
	for i, job := range c.jobs {
		if job.Op == "pump" {
			c.procs[i].do(request{Op: "stop"})
			if a := receive(t, "a writer to stop", c.done[i]); a.Err != "" {
				t.Fatalf("writer: %s", a.Err)
			}
		}
	}
	c.procs[1].do(request{Op: "set", Key: []byte("the end")})
	for i, job := range c.jobs {
		if job.Op == "tail" {
			if a := receive(t, "a subscriber to see the end", c.done[i]); a.Err != "" {
				t.Fatalf("%s: %s", job.Value, a.Err)
			}
		}
	}

	all := entries(t, dir)
	t.Logf("%d batches, the last is %d; %d kills", len(all), all[len(all)-1][0], kills)
	for name, from := range map[string]uint64{"first": 1, "now": 0, "middle": middle} {
		got := readJournal(t, string(path(name)))
		if from == 0 {
			from = got[0][0]
		}
		want := all
		for want[0][0] < from {
			want = want[1:]
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d events, want %d", name, len(got), len(want))
		}
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%s: event %d is %d (%x), want %d (%x)", name, i, got[i][0], got[i][1], want[i][0], want[i][1])
			}
		}
	}
	hashes := make(map[uint64]uint64, len(all))
	for _, e := range all {
		hashes[e[0]] = e[1]
	}
	acknowledged := 0
	for i := range 3 {
		for _, a := range readJournal(t, string(path(fmt.Sprintf("writer %d", i)))) {
			acknowledged++
			if hashes[a[0]] != a[1] {
				t.Fatalf("a write was acknowledged as %d; the log has another one there, or none", a[0])
			}
		}
	}
	t.Logf("%d acknowledged writes are in the log", acknowledged)
}
