package party_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/party"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(childEnv); config != "" {
		os.Exit(childMain(config))
	}
	goleak.VerifyTestMain(m, party.Leaked()...)
}

// patience is how long a test waits for what must happen. It is no measure of
// anything: a machine under load and the race detector take their time.
const patience = 60 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want fails unless err is target; nil is a target too.
func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

// until waits for ok, which is asked again and again; why says what for.
func until(t testing.TB, why string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, why)
		}
		<-time.After(time.Millisecond)
	}
}

// receive waits for a value from c; why says which.
func receive[T any](t testing.TB, why string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s in vain for %s", patience, why)
		panic("unreachable")
	}
}

// newDir returns a directory for a database that is checked once all handles
// that the test opens later have closed.
func newDir(t testing.TB) string {
	t.Helper()
	return newDirFor(t, nil)
}

func newDirFor(t testing.TB, o *pebble.Options) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(dir, "party", "log")); err == nil && !t.Failed() {
			checkConsistent(t, dir, o)
		}
	})
	return dir
}

// checkConsistent opens dir with plain Pebble and compares its keys with what
// the log gives when it is applied from the start to an empty database, if the
// log still begins there.
func checkConsistent(t testing.TB, dir string, o *pebble.Options) {
	t.Helper()
	got := plainKeys(t, dir, o)
	r, err := eventlog.OpenReader(vfs.Default, filepath.Join(dir, "party", "log"), 1)
	if errors.Is(err, eventlog.ErrCompacted) {
		return
	}
	must(t, err)
	defer func() { must(t, r.Close()) }()
	replayed := o.Clone()
	replayed.FS = vfs.NewMem()
	replayed.Logger = silent{}
	db, err := pebble.Open("", replayed)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	type id struct {
		origin apply.Origin
		number uint64
	}
	seen := make(map[id]uint64)
	for last := uint64(0); ; {
		rec, ok, err := r.Next(1 << 60)
		must(t, err)
		if !ok {
			break
		}
		if rec.Seq <= last {
			t.Fatalf("the log has %d after %d", rec.Seq, last)
		}
		last = rec.Seq
		if rec.Kind != eventlog.KindEntry {
			continue
		}
		e, err := apply.DecodeEntry(rec.Payload)
		must(t, err)
		if before, twice := seen[id{e.Origin, e.Number}]; twice {
			t.Errorf("command %d of %s is in the log twice: %d and %d", e.Number, e.Origin, before, rec.Seq)
		}
		seen[id{e.Origin, e.Number}] = rec.Seq
		var b pebble.Batch
		must(t, b.SetRepr(bytes.Clone(e.Repr)))
		must(t, db.Apply(&b, pebble.NoSync))
	}
	wanted := keysOf(t, db)
	for k, v := range wanted {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("key %.40q is %.40q (there: %t) in Pebble, %.40q by the log", k, g, ok, v)
		}
	}
	for k := range got {
		if _, ok := wanted[k]; !ok {
			t.Errorf("key %.40q is in Pebble, but not by the log", k)
		}
	}
}

// plainKeys opens dir with plain Pebble and returns the user's keys.
func plainKeys(t testing.TB, dir string, o *pebble.Options) map[string]string {
	t.Helper()
	o = o.Clone()
	o.Logger = silent{}
	o.ReadOnly = true
	o.ErrorIfNotExists = true
	db, err := pebble.Open(dir, o)
	if err != nil {
		t.Fatalf("plain Pebble: %v", err)
	}
	defer func() { must(t, db.Close()) }()
	return keysOf(t, db)
}

func keysOf(t testing.TB, db *pebble.DB) map[string]string {
	t.Helper()
	it, err := db.NewIter(nil)
	must(t, err)
	defer func() { must(t, it.Close()) }()
	m := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		if !apply.IsReserved(it.Key()) {
			m[string(it.Key())] = string(it.Value())
		}
	}
	must(t, it.Error())
	return m
}

// silent keeps Pebble quiet.
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// open opens dir and closes the handle in the clean-up.
func open(t testing.TB, dir string, o *party.Options) *party.DB {
	t.Helper()
	db, err := party.Open(within(t), dir, o)
	must(t, err)
	t.Cleanup(func() { closeDB(t, db) })
	return db
}

func closeDB(t testing.TB, db *party.DB) {
	t.Helper()
	if err := db.Close(); err != nil && !errors.Is(err, party.ErrClosed) {
		t.Errorf("close: %v", err)
	}
}

// leads waits until db leads.
func leads(t testing.TB, db *party.DB) { t.Helper(); hasRole(t, db, party.Leading) }

func hasRole(t testing.TB, db *party.DB, role party.Role) {
	t.Helper()
	until(t, "the handle is "+role.String(), func() bool {
		s, err := db.Status(within(t))
		must(t, err)
		return s.Role == role && s.Responding
	})
}

func set(t testing.TB, db *party.DB, key, value string) {
	t.Helper()
	must(t, db.Set(within(t), []byte(key), []byte(value), nil))
}

func expect(t testing.TB, db *party.DB, key, value string) {
	t.Helper()
	v, err := db.Get(within(t), []byte(key))
	if err != nil || string(v) != value {
		t.Fatalf("key %.40q is %.40q, %v; want %.40q", key, v, err, value)
	}
}

// scan returns all keys and values in order.
func scan(t testing.TB, db *party.DB, o *party.IterOptions) (pairs []string) {
	t.Helper()
	it, err := db.NewIter(within(t), o)
	must(t, err)
	for k, v := range it.All() {
		pairs = append(pairs, string(k)+"="+string(v))
	}
	must(t, it.Close())
	return pairs
}

// sum is a Merger that adds decimal numbers: an operand that is applied twice
// shows.
var sum = &pebble.Merger{
	Name: "party_test.sum",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		s := &summer{}
		return s, s.MergeNewer(value)
	},
}

type summer struct{ n int64 }

func (s *summer) MergeNewer(value []byte) error {
	n, err := strconv.ParseInt(string(value), 10, 64)
	s.n += n
	return err
}
func (s *summer) MergeOlder(value []byte) error { return s.MergeNewer(value) }
func (s *summer) Finish(bool) ([]byte, io.Closer, error) {
	return strconv.AppendInt(nil, s.n, 10), nil, nil
}

// backwards orders keys by their bytes, the greatest first, but the empty key
// before all others. Pebble wants prefixes in the order of their bytes, and
// checks it in race builds now and then, so to it each key is all suffix.
var backwards = func() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "party_test.backwards"
	compare := func(a, b []byte) int {
		if len(a) == 0 || len(b) == 0 {
			return cmp.Compare(len(a), len(b))
		}
		return bytes.Compare(b, a)
	}
	c.Compare, c.ComparePointSuffixes, c.CompareRangeSuffixes = compare, compare, compare
	c.Split = func([]byte) int { return 0 }
	c.AbbreviatedKey = func([]byte) uint64 { return 0 }
	c.Separator = func(dst, a, _ []byte) []byte { return append(dst, a...) }
	c.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	c.ImmediateSuccessor = nil
	return &c
}()
