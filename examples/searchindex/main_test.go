package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

const childEnv = "SEARCHINDEX_CHILD"

// TestMain makes the test binary the program itself.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

var vocabulary = strings.Fields("ant bee cat dog elk fox gnu hen ibis jay kite lion")

func sentence(rng *rand.Rand) string {
	words := make([]string, 1+rng.IntN(6))
	for i := range words {
		words[i] = vocabulary[rng.IntN(len(vocabulary))]
	}
	return strings.Join(words, ", ")
}

// A follower is killed again and again while documents change; after that the
// index is what a fresh look at the database says.
func TestSearchIndex_KilledAndResumed(t *testing.T) {
	ctx := t.Context()
	source, dir := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "index")
	db, err := party.Open(ctx, source, nil)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	rng := rand.New(rand.NewPCG(1, 2))
	change := func() {
		key := fmt.Appendf(nil, "doc%03d", rng.IntN(200))
		switch rng.IntN(10) {
		case 0:
			must(t, db.Delete(ctx, key, pebble.NoSync))
		case 1:
			must(t, db.DeleteRange(ctx, key, append(key[:5:5], '9'), pebble.NoSync))
		default:
			must(t, db.Set(ctx, key, []byte(sentence(rng)), pebble.NoSync))
		}
	}
	for i := range 8 {
		child := exec.Command(os.Args[0], "follow", source, dir)
		child.Env = append(os.Environ(), childEnv+"=1")
		said, err := child.StderrPipe()
		must(t, err)
		must(t, child.Start())
		for end := time.Now().Add(time.Duration(rng.IntN(100)) * time.Millisecond); time.Now().Before(end); {
			change()
		}
		if i%2 == 0 { // the others may be killed while they start, or build the index
			first, err := bufio.NewReader(said).ReadString('\n')
			if err != nil || !strings.HasPrefix(first, "following from ") {
				t.Fatalf("the follower says %q, %v", first, err)
			}
			for range 100 {
				change()
			}
		}
		must(t, child.Process.Kill())
		_ = child.Wait()
	}
	for range 100 {
		change()
	}

	ix, err := openIndex(dir)
	must(t, err)
	defer func() { must(t, ix.Close()) }()
	if seq, built, err := ix.position(); err != nil || !built || seq == 0 {
		t.Fatalf("no follower came to work: position %d, %v, %v", seq, built, err)
	}
	catchUp(t, db, ix)

	want := map[string][]string{}
	it, err := db.NewIter(ctx, nil)
	must(t, err)
	for k, v := range it.All() {
		for _, w := range split(string(v)) {
			want[w] = append(want[w], string(k))
		}
	}
	must(t, it.Close())
	for _, w := range vocabulary {
		got, err := ix.find(w)
		must(t, err)
		if !slices.Equal(got, want[w]) {
			t.Errorf("%s is in %v, the index says %v", w, want[w], got)
		}
	}
}

// Not one event is missed or comes twice over a restart.
func TestSearchIndex_ResumesBehindTheLastEvent(t *testing.T) {
	db, err := party.Open(t.Context(), filepath.Join(t.TempDir(), "db"), nil)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	ix, err := openIndex(filepath.Join(t.TempDir(), "index"))
	must(t, err)
	defer func() { must(t, ix.Close()) }()
	for i := range 20 {
		for _, k := range []string{"a", "b"} {
			must(t, db.Set(t.Context(), []byte(k), fmt.Append(nil, k, i), pebble.Sync))
		}
		catchUp(t, db, ix)
		for _, k := range []string{"a", "b"} {
			if got, err := ix.find(fmt.Sprint(k, i)); err != nil || !slices.Equal(got, []string{k}) {
				t.Fatalf("%s%d is in %v, %v", k, i, got, err)
			}
		}
	}
	if _, built, err := ix.position(); err != nil || !built {
		t.Fatal(built, err)
	}
}

// catchUp keeps the index until it has what the log has now.
func catchUp(t *testing.T, db *party.DB, ix *index) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := db.Status(ctx)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- keep(ctx, db, ix) }()
	for {
		seq, _, err := ix.position()
		must(t, err)
		if seq == st.Committed {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it ended at %d of %d: %v", seq, st.Committed, err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
