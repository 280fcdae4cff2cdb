package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
)

// patience is when a wait has failed; nothing is measured against it.
const patience = 60 * time.Second

// A second process is this test binary run again with a role: a Pebble that is
// given up leaves goroutines behind for good.
const roleEnv = "APPLY_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := roles[role](); err != nil {
			fmt.Fprintln(os.Stderr, role, err)
			os.Exit(1)
		}
		fmt.Println("role done")
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	dbDir      = "/db"
	logDir     = "/db/party/log"
	memoryPath = "/db/party/memory"
)

var quiet = slog.New(slog.DiscardHandler)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func flushSoon(m *apply.Machine) error {
	_, err := m.FlushSoon()
	return err
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func memFS(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	must(t, fs.MkdirAll("/db/party", 0o700))
	must(t, syncDir(fs, "/"))
	must(t, syncDir(fs, "/db"))
	return fs
}

// node is what a leader has open.
type node struct {
	fs    vfs.FS
	m     *apply.Machine
	log   *eventlog.Log
	lock  *pebble.Lock
	g     apply.Group
	clock int64
	term  uint64 // sequence number of the term record

	notes bool // after every group what Resume needs is written down
}

func small(fs vfs.FS) *pebble.Options {
	return &pebble.Options{FS: fs, MemTableSize: 32 << 10, Logger: silent{}}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

// join is open, and replays.
func join(o *pebble.Options, lo eventlog.Options) (*node, error) {
	n, err := open(o, lo)
	if err != nil {
		return n, err
	}
	if err := n.m.CatchUp(context.Background()); err != nil {
		return n, errors.Join(err, n.end(false))
	}
	return n, nil
}

// open opens state and log, as a new leader does before its term. The state may be
// behind the log then.
func open(o *pebble.Options, lo eventlog.Options) (n *node, err error) {
	n = &node{fs: o.FS}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.end(false))
		}
	}()
	if n.lock, err = pebble.LockDirectory(dbDir, o.FS); err != nil {
		return nil, err
	}
	if n.m, err = apply.Open(dbDir, o, n.lock, quiet); err != nil {
		return n, err
	}
	lo.FS, lo.ID = o.FS, n.m.ID()
	if n.log, err = eventlog.Open(logDir, lo); err != nil {
		return n, err
	}
	if err := n.m.Recover(n.log); err != nil {
		return n, err
	}
	if _, err := o.FS.Stat(memoryPath); errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	return n, o.FS.Remove(memoryPath)
}

// resume is open for a leader that finds what the last one has written down. It returns no
// node where there is nothing of use.
func resume(o *pebble.Options, lo eventlog.Options) (n *node, err error) {
	f, err := o.FS.Open(memoryPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	memory, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	n = &node{fs: o.FS}
	if n.lock, err = pebble.LockDirectory(dbDir, o.FS); err != nil {
		return nil, err
	}
	lo.FS = o.FS
	// The log was durable up to there when the memory was written.
	lo.From = apply.MemoryPosition(memory)
	lo.DurableHint = max(lo.DurableHint, lo.From.Last)
	if n.log, err = eventlog.Open(logDir, lo); err != nil {
		return nil, errors.Join(err, n.end(false))
	}
	if n.m, err = apply.Resume(dbDir, o, n.lock, quiet, n.log, memory); err != nil {
		return nil, n.end(false)
	}
	return n, nil
}

// note writes down what the next leader needs to resume, if the log is durable. The file is
// not.
func (n *node) note() error {
	if !n.notes || n.log.Durable() < n.log.Last() {
		return nil
	}
	f, err := n.fs.OpenReadWrite(memoryPath, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(n.m.Memory(nil, n.log.Last(), n.log.Position()), 0)
	return errors.Join(err, f.Close())
}

// begin starts the term.
func (n *node) begin() (err error) {
	n.clock += int64(time.Second)
	if _, n.term, err = n.log.StartTerm(time.Unix(0, n.clock)); err != nil {
		return err
	}
	if err := n.log.Sync(); err != nil {
		return err
	}
	return n.m.ApplyTerm(n.term)
}

func lead(t testing.TB, o *pebble.Options) *node {
	t.Helper()
	n, err := join(o, eventlog.Options{})
	must(t, err)
	must(t, n.begin())
	t.Cleanup(func() { _ = n.end(false) })
	return n
}

// end closes what is open, as release does.
func (n *node) end(clean bool) error {
	var errs []error
	if n.m != nil {
		errs = append(errs, n.m.Close(clean))
	}
	if n.log != nil {
		if clean {
			errs = append(errs, n.log.Close())
		} else {
			errs = append(errs, n.log.Abort())
		}
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	n.m, n.log, n.lock = nil, nil, nil
	return errors.Join(errs...)
}

// group judges commands together. For a condition the state has to be there.
func (n *node) group(cmds ...apply.Command) []apply.Answer {
	if slices.ContainsFunc(cmds, func(c apply.Command) bool { return c.Cond != nil && !c.Cursor }) {
		if err := n.m.CatchUp(context.Background()); err != nil {
			panic(err)
		}
	}
	n.clock += int64(time.Millisecond)
	n.m.Begin(&n.g, n.log.Last()+1, time.Unix(0, n.clock))
	answers := make([]apply.Answer, len(cmds))
	for i := range cmds {
		answers[i] = n.g.Judge(&cmds[i])
	}
	return answers
}

// finish logs and applies what group judged.
func (n *node) finish() error {
	if e := n.g.Entries(); len(e) > 0 {
		if _, err := n.log.Append(e, n.g.Sync()); err != nil {
			return errors.Join(err, n.g.Discard())
		}
	} else if n.g.Sync() {
		if err := n.log.Sync(); err != nil {
			return err
		}
	}
	if err := n.m.Apply(&n.g); err != nil {
		return err
	}
	return n.note()
}

func (n *node) commit(t testing.TB, cmds ...apply.Command) []apply.Answer {
	t.Helper()
	a := n.group(cmds...)
	must(t, n.finish())
	return a
}

func (n *node) get(t testing.TB, key string) string {
	t.Helper()
	v, err := n.m.Get(nil, []byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return "absent"
	}
	must(t, err)
	return string(v)
}

// client numbers the commands of one origin.
type client struct {
	origin apply.Origin
	number uint64
}

func newClient(name string) *client {
	c := &client{}
	copy(c.origin[:], name)
	return c
}

func (c *client) cmd(repr []byte) apply.Command {
	c.number++
	return apply.Command{Origin: c.origin, Number: c.number, Low: c.number, Repr: repr}
}

func (c *client) set(key, value string) apply.Command {
	return c.cmd(apply.ReprSet([]byte(key), []byte(value)))
}

func (c *client) cas(key string, old any, repr []byte) apply.Command {
	cmd := c.cmd(repr)
	cmd.Cond = &apply.Condition{Key: []byte(key), Absent: old == nil}
	if s, ok := old.(string); ok {
		cmd.Cond.Value = []byte(s)
	}
	return cmd
}

func retry(c apply.Command) apply.Command {
	c.Retry = true
	return c
}

func batch(t testing.TB, ops func(b *pebble.Batch) error) []byte {
	t.Helper()
	var b pebble.Batch
	must(t, ops(&b))
	return bytes.Clone(b.Repr())
}

type pair struct{ key, value string }

// userKeys returns the key space as callers see it.
func userKeys(t testing.TB, m *apply.Machine) []pair {
	t.Helper()
	return dump(t, m, func(k []byte) bool { return !apply.IsReserved(k) })
}

// derived returns all that follows from the log.
func derived(t testing.TB, m *apply.Machine) []pair {
	t.Helper()
	return dump(t, m, func(k []byte) bool {
		s, ours := strings.CutPrefix(string(k), apply.ReservedPrefix)
		return !ours || s != "id\x00" && s != "clean\x00"
	})
}

func dump(t testing.TB, m *apply.Machine, want func([]byte) bool) (all []pair) {
	t.Helper()
	it, err := m.NewIter(nil)
	must(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		if want(it.Key()) {
			all = append(all, pair{string(it.Key()), string(it.Value())})
		}
	}
	must(t, it.Close())
	return all
}

func same(t testing.TB, what string, got, want []pair) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			var g, w any = "nothing", "nothing"
			if i < len(got) {
				g = got[i]
			}
			if i < len(want) {
				w = want[i]
			}
			t.Fatalf("%s: %d and %d keys; at %d there is\n%.200q, want\n%.200q", what, len(got), len(want), i, g, w)
		}
	}
}

type logged struct {
	kind    eventlog.Kind
	payload string
}

func readLog(fs vfs.FS, from uint64) (map[uint64]logged, error) {
	r, err := eventlog.OpenReader(fs, logDir, from)
	if err != nil {
		return nil, err
	}
	all := map[uint64]logged{}
	for {
		rec, ok, err := r.Next(math.MaxUint64)
		if err != nil || !ok {
			return all, errors.Join(err, r.Close())
		}
		all[rec.Seq] = logged{rec.Kind, string(rec.Payload)}
	}
}

// waitFor waits until ok, looking again whenever ping is received, and at times.
func waitFor[T any](t testing.TB, what string, ping <-chan T, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-ping:
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("still waiting: %s", what)
		}
	}
}
