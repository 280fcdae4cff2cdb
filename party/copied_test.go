package party_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// TestOpen_CopyOfALiveDatabase: a directory that was copied while somebody led there is a database of
// its own. The endpoint file in it names a leader that answers, and is of the same database by its id.
func TestOpen_CopyOfALiveDatabase(t *testing.T) {
	for _, c := range []struct{ name, below string }{
		{"short path", "db"},
		{"long path", filepath.Join(strings.Repeat("a", 100), "db")}, // too long for a socket's name
	} {
		t.Run(c.name, func(t *testing.T) {
			temp := t.TempDir()
			dir := filepath.Join(temp, c.below)
			first := open(t, dir, nil)
			set(t, first, "a", "1")
			must(t, first.Close())
			copies := make([]string, 5)
			for i := range copies {
				copies[i] = filepath.Join(temp, fmt.Sprint("copy", i))
				must(t, os.CopyFS(copies[i], os.DirFS(dir)))
			}
			original := open(t, dir, nil)
			endpoint, err := os.ReadFile(filepath.Join(dir, "party", "endpoint"))
			must(t, err)
			for i, copied := range copies {
				must(t, os.WriteFile(filepath.Join(copied, "party", "endpoint"), endpoint, 0o600))
				var opened sync.WaitGroup
				for j := range 3 { // who leads has not said so yet when the others look
					opened.Go(func() {
						db, err := party.Open(within(t), copied, nil)
						if err == nil {
							err = db.Set(within(t), fmt.Appendf(nil, "copy %d", j), nil, nil)
							err = errors.Join(err, db.Close())
						}
						if err != nil {
							t.Error(err)
						}
					})
				}
				opened.Wait()
				for j := range 3 {
					if _, err := original.Get(within(t), fmt.Appendf(nil, "copy %d", j)); !errors.Is(err, pebble.ErrNotFound) {
						t.Fatalf("what was written to copy %d is in the original: %v", i, err)
					}
				}
				copy := open(t, copied, nil)
				for j := range 3 {
					expect(t, copy, fmt.Sprint("copy ", j), "")
				}
			}
			if runtime.GOOS != "windows" {
				if _, err := os.Stat(filepath.Join(dir, "party", "nats.sock")); err != nil {
					t.Errorf("who opened a copy has removed the original's socket: %v", err)
				}
			}
			expect(t, open(t, dir, nil), "a", "1")
		})
	}
}
