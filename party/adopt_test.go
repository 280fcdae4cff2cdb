package party_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// plain makes a database with plain Pebble.
func plain(t *testing.T, o *pebble.Options) string {
	t.Helper()
	dir := t.TempDir()
	o = o.Clone()
	o.Logger = silent{}
	db, err := pebble.Open(dir, o)
	must(t, err)
	for i := range 100 {
		must(t, db.Set(fmt.Appendf(nil, "plain%03d", i), fmt.Append(nil, i), pebble.NoSync))
	}
	must(t, db.Merge([]byte("plain000"), []byte("5"), pebble.Sync))
	must(t, db.Close())
	return dir
}

func TestOpen_AdoptsPlainPebble(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     *pebble.Options
		first string
		zero  string
	}{
		{"defaults", &pebble.Options{}, "plain000", "05"},
		{"merger", &pebble.Options{Merger: sum}, "plain000", "5"},
		{"comparer", &pebble.Options{Comparer: backwards}, "plain099", "05"},
		{"both", &pebble.Options{Merger: sum, Comparer: backwards}, "plain099", "5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := plain(t, c.o)
			dbs := []*party.DB{open(t, dir, &party.Options{Pebble: c.o}), open(t, dir, &party.Options{Pebble: c.o})}
			for _, db := range dbs {
				expect(t, db, "plain000", c.zero)
				got := scan(t, db, nil)
				if len(got) != 100 || !strings.HasPrefix(got[0], c.first) {
					t.Fatalf("%d keys, the first is %q", len(got), got[0])
				}
				back := make([]string, 0, 100)
				it, err := db.NewIter(within(t), nil)
				must(t, err)
				for ok := it.Last(); ok; ok = it.Prev() {
					back = append(back, string(it.Key())+"="+string(it.Value()))
				}
				must(t, it.Close())
				slices.Reverse(back)
				if !slices.Equal(got, back) {
					t.Errorf("backwards: %q", back)
				}
			}
			set(t, dbs[1], "party", "1")
			must(t, dbs[1].Delete(within(t), []byte("plain001"), nil))
			must(t, dbs[0].Close())
			must(t, dbs[1].Close())
			keys := plainKeys(t, dir, c.o)
			if len(keys) != 100 || keys["party"] != "1" || keys["plain000"] != c.zero {
				t.Errorf("plain Pebble finds %d keys: %v", len(keys), keys)
			}
			// And back again.
			db := open(t, dir, &party.Options{Pebble: c.o})
			expect(t, db, "party", "1")
		})
	}
}

// TestClose_CompletesAKilledLeader: the last handle to close followed a leader
// that was killed.
func TestClose_CompletesAKilledLeader(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, nil)
	for i := range 100 {
		must(t, db.Set(within(t), fmt.Append(nil, "k", i), nil, pebble.NoSync))
	}
	leader.kill()
	must(t, db.Close())
	if got := plainKeys(t, dir, nil); len(got) != 100 {
		t.Errorf("plain Pebble finds %d keys of 100", len(got))
	}
}

func TestOpen_RefusesAnotherComparer(t *testing.T) {
	mine := &party.Options{Pebble: &pebble.Options{Comparer: backwards, Merger: sum, Logger: silent{}}}
	check := func(t *testing.T, dir string) {
		for _, c := range []struct {
			o    *pebble.Options
			says []string
		}{
			{&pebble.Options{Merger: sum}, []string{backwards.Name, pebble.DefaultComparer.Name}},
			{&pebble.Options{Comparer: backwards}, []string{sum.Name, pebble.DefaultMerger.Name}},
		} {
			c.o.Logger = silent{}
			db, err := party.Open(within(t), dir, &party.Options{Pebble: c.o})
			if err == nil {
				t.Fatalf("opened: %v", db.Close())
			}
			want(t, err, party.ErrIncompatible)
			for _, name := range c.says {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("%v does not name %q", err, name)
				}
			}
		}
	}
	t.Run("as a follower", func(t *testing.T) {
		dir := newDirFor(t, mine.Pebble)
		db := open(t, dir, mine)
		set(t, db, "a", "1")
		check(t, dir)
		expect(t, db, "a", "1")
	})
	t.Run("as the leader", func(t *testing.T) {
		dir := newDirFor(t, mine.Pebble)
		db := open(t, dir, mine)
		set(t, db, "a", "1")
		must(t, db.Close())
		check(t, dir)
		expect(t, open(t, dir, mine), "a", "1")
	})
}

func TestOpen_InUseByPlainPebble(t *testing.T) {
	dir := t.TempDir()
	db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	must(t, err)
	must(t, db.Set([]byte("a"), []byte("1"), pebble.Sync))
	t.Run("in this process", func(t *testing.T) {
		p, err := party.Open(within(t), dir, nil)
		if err == nil {
			t.Fatalf("opened: %v", p.Close())
		}
		want(t, err, party.ErrInUse)
	})
	t.Run("in another", func(t *testing.T) {
		p := launch(t, config{Dir: dir})
		if a := receive(t, "a child to fail", p.opened()); !slices.Contains(a.Is, "in use") {
			t.Errorf("%+v", a)
		}
	})
	must(t, db.Close())
	expect(t, open(t, dir, nil), "a", "1")
}

func TestOpen_LogOfAKilledLeaderMissing(t *testing.T) {
	dir := t.TempDir()
	leader := start(t, config{Dir: dir})
	leader.do(request{Op: "resign"}) // so that Pebble has bookkeeping on disk
	leader.do(request{Op: "set", Key: []byte("a"), Value: []byte("1")})
	leader.kill()
	must(t, os.Rename(filepath.Join(dir, "party", "log"), filepath.Join(dir, "party", "log.away")))
	db, err := party.Open(within(t), dir, nil)
	if err == nil {
		t.Fatalf("opened without its log: %v", db.Close())
	}
	want(t, err, party.ErrCorrupt)
	must(t, os.RemoveAll(filepath.Join(dir, "party", "log")))
	must(t, os.Rename(filepath.Join(dir, "party", "log.away"), filepath.Join(dir, "party", "log")))
	expect(t, open(t, dir, nil), "a", "1")
}
