package party

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// brittleFS lets the manifests fail of the replicas that were there as it broke.
type brittleFS struct {
	vfs.FS
	broken atomic.Pointer[[]string] // folders
}

func (f *brittleFS) Unwrap() vfs.FS { return f.FS }

func (f *brittleFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err != nil || !strings.HasPrefix(filepath.Base(name), "MANIFEST") {
		return file, err
	}
	return &brittleFile{file, f, name}, nil
}

type brittleFile struct {
	vfs.File
	fs   *brittleFS
	name string
}

func (f *brittleFile) Write(p []byte) (int, error) {
	if folders := f.fs.broken.Load(); folders != nil {
		for _, folder := range *folders {
			if strings.HasPrefix(f.name, folder+string(filepath.Separator)) {
				return 0, errors.New("the manifest is broken")
			}
		}
	}
	return f.File.Write(p)
}

type quietPebble struct{}

func (quietPebble) Infof(string, ...any)  {}
func (quietPebble) Errorf(string, ...any) {}
func (quietPebble) Fatalf(string, ...any) {}

// A replica whose Pebble breaks is not closed while somebody reads it, which would
// end the process, and holds up nobody's Close.
func TestLocal_BrokenReplicaIsNotClosedUnderAReader(t *testing.T) {
	if !InOwnProcess(t) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	leader, err := Open(ctx, dir, &Options{Pebble: &pebble.Options{Logger: quietPebble{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := leader.Close(); err != nil {
			t.Error(err)
		}
	}()
	fs := &brittleFS{FS: vfs.Default}
	db, err := Open(ctx, dir, &Options{LocalReads: true, Pebble: &pebble.Options{FS: fs, Logger: quietPebble{}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		t.Helper()
		if err := leader.Set(ctx, []byte("k"), make([]byte, 1<<20), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Get(ctx, []byte("k")); err != nil {
			t.Fatal(err)
		}
	}
	for db.local.serving.Load() == nil {
		read()
	}
	lr := db.local.serving.Load()
	if !lr.gate.enter() {
		t.Fatal("it serves no longer")
	}
	folders, err := filepath.Glob(filepath.Join(db.dir, "party", "replicas", "*"))
	if err != nil {
		t.Fatal(err)
	}
	fs.broken.Store(&folders)
	for broke := false; !broke; { // once it has to flush
		read()
		select {
		case <-lr.Failed():
			broke = true
		default:
		}
	}
	read() // which finds out
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Fatal("Close waits for the reader")
	}
	if _, err := lr.Get(nil, []byte("k")); err != nil { // panics if its Pebble was closed
		t.Errorf("the reader: %v", err)
	}
	lr.gate.exit()
	rs := db.replicas
	for users := 1; users > 0 && ctx.Err() == nil; {
		rs.mu.Lock()
		users = lr.users
		rs.mu.Unlock()
	}
	if ctx.Err() != nil {
		t.Error("the replica is not given back once the reader has left")
	}
}
