package apply_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

var cfgNothing = vfs.CrashCloneCfg{}

// script is a history that forgets origins, deletes everything at times, and
// misuses SingleDelete.
func script(t testing.TB, seed uint64) (cmds []apply.Command) {
	rng := rand.New(rand.NewPCG(seed, 3))
	clients := make([]*client, apply.MaxOrigins+40)
	for i := range clients {
		clients[i] = newClient(fmt.Sprint("o", i))
	}
	for i := range 1400 {
		c := clients[i%len(clients)]
		if rng.IntN(3) == 0 {
			c = clients[rng.IntN(20)]
		}
		k := func() []byte { return fmt.Appendf(nil, "k%02d", rng.IntN(20)) }
		cmd := c.cmd(batch(t, func(b *pebble.Batch) error {
			switch rng.IntN(100) {
			case 0:
				return b.DeleteRange([]byte{0}, []byte("\xff\xff\xff\xff"), nil)
			case 1, 2:
				return b.DeleteRange(k(), k(), nil)
			case 3, 4, 5, 10, 11, 12, 13:
				return b.Merge(k(), []byte("m"), nil)
			case 6, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29:
				return b.SingleDelete(k(), nil)
			}
			return b.Set(k(), fmt.Append(nil, i), nil)
		}))
		cmd.Low = max(4, cmd.Number) - 3
		cmds = append(cmds, cmd)
	}
	return cmds
}

// run commits the script in groups of the sizes that size gives.
func run(t testing.TB, n *node, cmds []apply.Command, size func() int) {
	t.Helper()
	for len(cmds) > 0 {
		k := min(size(), len(cmds))
		n.clock = 0 // the time must not depend on the number of groups
		n.commit(t, cmds[:k]...)
		if size() == 1 {
			must(t, flushSoon(n.m))
		}
		cmds = cmds[k:]
	}
}

func TestMachine_SameLogSameState(t *testing.T) {
	cmds := script(t, 1)
	rng := rand.New(rand.NewPCG(2, 2))
	fs := memFS(t)
	n := lead(t, small(fs))
	run(t, n, cmds, func() int { return 1 + rng.IntN(9) })
	all := derived(t, n.m)

	t.Run("other groups", func(t *testing.T) {
		for _, size := range []int{1, 3, 1500} {
			n := lead(t, small(memFS(t)))
			run(t, n, cmds, func() int { return size })
			same(t, fmt.Sprint("groups of ", size), derived(t, n.m), all)
		}
	})
	t.Run("replay of everything", func(t *testing.T) {
		same(t, "replay", derived(t, replayed(t, fs)), all)
	})
	t.Run("replay on what was flushed", func(t *testing.T) {
		n, err := join(small(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})), eventlog.Options{})
		must(t, err)
		defer n.end(false)
		same(t, "replay", derived(t, n.m), all)
	})
	t.Run("model", func(t *testing.T) {
		recs, err := readLog(fs, 0)
		must(t, err)
		same(t, "user keys", userKeys(t, n.m), fold(t, recs).pairs())
	})
}

// replayed replays a copy of the log into an empty Pebble.
func replayed(t testing.TB, from vfs.FS) *apply.Machine {
	t.Helper()
	fs := memFS(t)
	_, err := vfs.Clone(from, fs, logDir, logDir, vfs.CloneSync)
	must(t, err)
	n, err := join(small(fs), eventlog.Options{})
	must(t, err)
	t.Cleanup(func() { _ = n.end(false) })
	return n.m
}

func TestMachine_SameStateFromCheckpoint(t *testing.T) {
	cmds := script(t, 7)
	fs := memFS(t)
	n := lead(t, small(fs))
	run(t, n, cmds[:1200], func() int { return 7 })
	must(t, n.end(true))
	// A checkpoint of plain Pebble's, at the middle of the log.
	o := small(fs)
	db, err := pebble.Open(dbDir, o)
	must(t, err)
	must(t, fs.MkdirAll("/copy", 0o700))
	must(t, db.Checkpoint("/copy/db", pebble.WithFlushedWAL()))
	must(t, db.Close())
	n = lead(t, small(fs))
	run(t, n, cmds[1200:], func() int { return 2 })

	other := memFS(t)
	_, err = vfs.Clone(fs, other, "/copy/db", dbDir, vfs.CloneSync)
	must(t, err)
	_, err = vfs.Clone(fs, other, logDir, logDir, vfs.CloneSync)
	must(t, err)
	r, err := join(small(other), eventlog.Options{})
	must(t, err)
	defer r.end(false)
	same(t, "from the checkpoint", derived(t, r.m), derived(t, n.m))
	recs, err := readLog(fs, 0)
	must(t, err)
	if r.m.Applied() != slices.Max(slices.Collect(maps.Keys(recs))) {
		t.Fatal("not all of the log is applied")
	}
}
