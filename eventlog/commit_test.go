package eventlog_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

func TestCommit_IsSeenThroughEveryMapping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commit")
	if _, err := eventlog.ReadCommit(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("read what is not there: %v", err)
	}
	w, err := eventlog.OpenCommit(path, testID)
	must(t, err)
	r, err := eventlog.ReadCommit(path)
	must(t, err)
	w.SetTerm(3)
	w.SetCommitted(1 << 40)
	w.SetDurable(77)
	if r.ID() != testID || r.Term() != 3 || r.Committed() != 1<<40 || r.Durable() != 77 {
		t.Fatalf("reader sees %v %d %d %d", r.ID(), r.Term(), r.Committed(), r.Durable())
	}
	must(t, w.Close())
	must(t, w.Close())
	if w.Committed() != 1<<40 {
		t.Fatal("a closed commit word forgot")
	}
	w, err = eventlog.OpenCommit(path, testID) // the next leader takes it over
	must(t, err)
	w.SetCommitted(w.Committed() + 1)
	if r.Committed() != 1<<40+1 {
		t.Fatal("the next leader has another file")
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 4096 {
		t.Fatalf("%v, %v", info, err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("a reader's commit word was set")
			}
		}()
		r.SetTerm(1)
	}()
	must(t, w.Close())
	must(t, r.Close())
}

func TestCommit_ReplacesWhatIsNotItsOwn(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		read   error // of ReadCommit
		open   error // of OpenCommit
	}{
		{"another database", func(b []byte) []byte { return b }, nil, nil},
		{"empty", func([]byte) []byte { return nil }, eventlog.ErrForeign, nil},
		{"foreign", func([]byte) []byte { return make([]byte, 5000) }, eventlog.ErrForeign, nil},
		{"short", func(b []byte) []byte { return b[:4095] }, eventlog.ErrCorrupt, nil},
		{"damaged", func(b []byte) []byte { b[20] ^= 1; return b }, eventlog.ErrCorrupt, nil},
		{"newer", func(b []byte) []byte { b[8]++; return b }, eventlog.ErrVersion, eventlog.ErrVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "commit")
			w, err := eventlog.OpenCommit(path, eventlog.ID{9})
			must(t, err)
			w.SetCommitted(5)
			must(t, w.Close())
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, c.change(b), 0o600))
			r, err := eventlog.ReadCommit(path)
			if !errors.Is(err, c.read) {
				t.Fatalf("read: %v", err)
			}
			if err == nil {
				must(t, r.Close())
			}
			w, err = eventlog.OpenCommit(path, testID)
			if !errors.Is(err, c.open) {
				t.Fatalf("open: %v", err)
			}
			if err != nil {
				return
			}
			if w.Committed() != 0 || w.ID() != testID {
				t.Fatalf("committed %d of %v", w.Committed(), w.ID())
			}
			must(t, w.Close())
			names, err := filepath.Glob(path + "*")
			if err != nil || len(names) != 1 {
				t.Fatalf("left behind: %v, %v", names, err)
			}
		})
	}
}

func TestCommit_CloseBesideLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commit")
	w, err := eventlog.OpenCommit(path, testID)
	must(t, err)
	w.SetCommitted(8)
	r, err := eventlog.ReadCommit(path)
	must(t, err)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 10000 {
				if r.Committed() != 8 {
					t.Error("wrong")
				}
			}
		})
	}
	must(t, r.Close())
	wg.Wait()
	must(t, w.Close())
}

func TestCommit_CreatedIsSeenThroughEveryMapping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "word")
	if _, err := eventlog.AlterCommit(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("alter what is not there: %v", err)
	}
	c, err := eventlog.CreateCommit(path, testID)
	must(t, err)
	if c.ID() != testID || c.Term() != 0 || c.Committed() != 0 {
		t.Errorf("new: %v, %d, %d", c.ID(), c.Term(), c.Committed())
	}
	other, err := eventlog.AlterCommit(path)
	must(t, err)
	other.SetTerm(1)
	must(t, other.Close())
	if c.Term() != 1 {
		t.Errorf("term %d", c.Term())
	}
	must(t, c.Close())
	names, err := filepath.Glob(path + "*")
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
