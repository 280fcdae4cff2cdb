package snapshot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

func restoreOptions() snapshot.RestoreOptions {
	o := &pebble.Options{FS: vfs.Default, Logger: silent{}, Comparer: pebble.DefaultComparer, Merger: pebble.DefaultMerger}
	return snapshot.RestoreOptions{Pebble: o, Logger: slog.New(slog.DiscardHandler)}
}

// keysIn returns what plain Pebble finds in dir, ours too.
func keysIn(t testing.TB, dir string) map[string]string {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: silent{}})
	must(t, err)
	it, err := db.NewIter(nil)
	must(t, err)
	m := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		m[string(it.Key())] = string(it.Value())
	}
	must(t, errors.Join(it.Close(), db.Close()))
	return m
}

// nothingIn fails if a restore has left anything in the folder above its target.
func nothingIn(t testing.TB, above string) {
	t.Helper()
	entries, err := os.ReadDir(above)
	must(t, err)
	for _, e := range entries {
		t.Fatalf("%s is left", e.Name())
	}
}

func TestRestore_RefusesWhatWasCutShort(t *testing.T) {
	_, full, _ := filledOrigin(t)
	above := memory(t)
	for n := 0; n < len(full); n += 4 << 10 {
		refused(t, fmt.Sprint("cut at ", n), full[:n], above)
	}
	for n := len(full) - 70; n < len(full); n++ {
		refused(t, fmt.Sprint("cut at ", n), full[:n], above)
	}
}

func TestRestore_RefusesFlippedBits(t *testing.T) {
	_, full, incremental := filledOrigin(t)
	above := memory(t)
	dir := filepath.Join(above, "db")
	_, err := snapshot.Restore(t.Context(), bytes.NewReader(full), dir, restoreOptions())
	must(t, err)
	was := keysIn(t, dir)
	elsewhere := memory(t)
	rng := rand.New(rand.NewPCG(3, 4))
	flip := func(b []byte, bit int) { b[bit/8] ^= 1 << (bit % 8) }
	for _, stream := range [][]byte{full, incremental} {
		var bits []int
		for bit := range 120 * 8 {
			bits = append(bits, bit, len(stream)*8-1-bit)
		}
		for range 150 {
			bits = append(bits, rng.IntN(len(stream)*8))
		}
		for _, bit := range bits {
			flip(stream, bit)
			seq, err := snapshot.CheckStream(t.Context(), bytes.NewReader(stream))
			if !errors.Is(err, snapshot.ErrDamaged) {
				t.Fatalf("bit %d flipped: at %d, error %v", bit, seq.Seq, err)
			}
			for every, to := range map[int]string{5: filepath.Join(elsewhere, "db"), 7: dir} {
				if bit%every != 0 {
					continue // a check is quick, a restore is not
				}
				if _, err := snapshot.Restore(t.Context(), bytes.NewReader(stream), to, restoreOptions()); err == nil {
					t.Fatalf("bit %d flipped: restored in %s", bit, to)
				}
			}
			nothingIn(t, elsewhere)
			flip(stream, bit)
		}
	}
	same(t, keysIn(t, dir), was)
	_, err = snapshot.Restore(t.Context(), bytes.NewReader(incremental), dir, restoreOptions())
	must(t, err)
}

func TestRestore_ManyIncrementsInOneStream(t *testing.T) {
	o := newOrigin(t)
	var stream bytes.Buffer
	var want []map[string]string
	var seqs []uint64
	last := uint64(0)
	for i := range 5 {
		for j := range 50 {
			o.set(fmt.Sprintf("k%02d", (i*37+j)%80), fmt.Sprint(i, j))
		}
		if i == 0 {
			stream.Write(o.full())
		} else {
			stream.Write(o.since(last))
		}
		last = o.log.Last()
		want, seqs = append(want, o.keys()), append(seqs, last)
	}
	dir := filepath.Join(t.TempDir(), "db")
	// A byte at a time: the reader must not read ahead either.
	r := iotest.OneByteReader(&stream)
	for i := range want {
		seq, err := snapshot.Restore(t.Context(), r, dir, restoreOptions())
		must(t, err)
		if seq != seqs[i] {
			t.Errorf("backup %d is at %d, want %d", i, seq, seqs[i])
		}
		same(t, user(keysIn(t, dir)), want[i])
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last backup: %v", err)
	}
}

func TestRestore_RefusesGaps(t *testing.T) {
	o := newOrigin(t)
	o.set("k", "1")
	full, first := o.full(), o.log.Last()
	o.set("k", "2")
	inc1, second := o.since(first), o.log.Last()
	o.set("k", "3")
	inc2 := o.since(second)
	other := newOrigin(t)
	other.set("k", "x")
	foreign := other.since(first)
	above := t.TempDir()
	dir := filepath.Join(above, "db")
	restore := func(stream []byte) error {
		_, err := snapshot.Restore(t.Context(), bytes.NewReader(stream), dir, restoreOptions())
		return err
	}
	if err := restore(inc1); !errors.Is(err, snapshot.ErrGap) {
		t.Errorf("into nothing: %v", err)
	}
	nothingIn(t, above)
	must(t, restore(full))
	if err := restore(full); !errors.Is(err, snapshot.ErrNotEmpty) {
		t.Errorf("a full backup on top: %v", err)
	}
	for name, stream := range map[string][]byte{"without the one before": inc2, "of another database": foreign} {
		if err := restore(stream); !errors.Is(err, snapshot.ErrGap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same(t, user(keysIn(t, dir)), map[string]string{"k": "1"})
	must(t, restore(inc1))
	must(t, restore(inc1)) // again makes no difference
	must(t, restore(inc2))
	if err := restore(inc1); !errors.Is(err, snapshot.ErrGap) {
		t.Errorf("an older one: %v", err)
	}
	same(t, user(keysIn(t, dir)), map[string]string{"k": "3"})
	db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	must(t, err)
	applied := []byte(apply.ReservedPrefix + "applied\x00")
	v, c, err := db.Get(applied)
	must(t, err)
	v = append([]byte{v[0] + 1}, v[1:]...)
	must(t, errors.Join(c.Close(), db.Set(applied, v, nil), db.Close()))
	if err := restore(inc2); !errors.Is(err, snapshot.ErrGap) {
		t.Errorf("on a state that was written to: %v", err)
	}
}

func TestRestore_RefusesOtherFolders(t *testing.T) {
	o := newOrigin(t)
	full := o.full()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	if _, err := snapshot.Restore(t.Context(), bytes.NewReader(full), dir, restoreOptions()); !errors.Is(err, snapshot.ErrNotEmpty) {
		t.Errorf("a folder with a file: %v", err)
	}
	if _, err := snapshot.Restore(t.Context(), bytes.NewReader(full), filepath.Join(dir, "mine"), restoreOptions()); err == nil {
		t.Error("restored over a file")
	}
	empty := t.TempDir()
	must(t, os.Chmod(empty, 0o750))
	if _, err := snapshot.Restore(t.Context(), bytes.NewReader(full), empty, restoreOptions()); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	if info, err := os.Stat(empty); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	deep := filepath.Join(t.TempDir(), "a", "b", "db")
	if _, err := snapshot.Restore(t.Context(), bytes.NewReader(full), deep, restoreOptions()); err != nil {
		t.Errorf("a folder in none: %v", err)
	}
	wrong := restoreOptions()
	wrong.Pebble.Comparer = reversed()
	if _, err := snapshot.Restore(t.Context(), bytes.NewReader(full), filepath.Join(dir, "db"), wrong); !errors.Is(err, apply.ErrIncompatible) {
		t.Errorf("another comparer: %v", err)
	}
}

// countdown ends after it was asked so many times.
type countdown struct {
	context.Context
	left *int
}

func (c countdown) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

// An incremental backup that is cut short, wherever, leaves what the old database
// was at some number, and can be applied again.
func TestRestore_IncrementCutShortGoesOn(t *testing.T) {
	o := newOrigin(t)
	o.set("n", "0")
	full := o.full()
	first := o.log.Last()
	for i := range 60 {
		o.set("n", fmt.Sprint(i+1))
		o.set(fmt.Sprintf("k%03d", i), strings.Repeat("x", 50_000))
	}
	incremental := o.since(first)
	dir := filepath.Join(memory(t), "db")
	_, err := snapshot.Restore(t.Context(), bytes.NewReader(full), dir, restoreOptions())
	must(t, err)
	for n := 0; ; n++ {
		left := n
		_, err := snapshot.Restore(countdown{t.Context(), &left}, bytes.NewReader(incremental), dir, restoreOptions())
		got := user(keysIn(t, dir))
		at, converr := strconv.Atoi(got["n"])
		must(t, converr)
		if has := len(got) - 1; has != at && has != at-1 {
			t.Fatalf("cut at %d: n is %d with %d other keys", n, at, has)
		}
		entries, lerr := os.ReadDir(filepath.Dir(dir))
		must(t, lerr)
		if len(entries) != 1 {
			t.Fatalf("cut at %d: %d entries beside the database", n, len(entries))
		}
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || n > 200 {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	same(t, user(keysIn(t, dir)), o.keys())
}

// Damage that all checksums were made to fit: a chunk left out, or put in twice.
func TestRestore_EndTellsWhatIsMissing(t *testing.T) {
	_, full, incremental := filledOrigin(t)
	for _, stream := range [][]byte{full, incremental} {
		chunks := chunksOf(stream)
		if len(chunks) < 3 {
			t.Fatalf("%d chunks", len(chunks))
		}
		if _, err := snapshot.CheckStream(t.Context(), bytes.NewReader(sealed(stream[:16], chunks))); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(chunks)-1; i++ {
			for what, changed := range map[string][][]byte{
				"left out": slices.Delete(slices.Clone(chunks), i, i+1),
				"twice":    slices.Insert(slices.Clone(chunks), i, chunks[i]),
			} {
				if _, err := snapshot.CheckStream(t.Context(), bytes.NewReader(sealed(stream[:16], changed))); !errors.Is(err, snapshot.ErrDamaged) {
					t.Errorf("chunk %d %s: %v", i, what, err)
				}
			}
		}
	}
}

// chunksOf returns the chunks of a stream without their checksums.
func chunksOf(stream []byte) (chunks [][]byte) {
	for at := 16; at < len(stream); {
		n := 8 + int(binary.LittleEndian.Uint32(stream[at+4:]))
		chunks = append(chunks, stream[at:at+n])
		at += n + 4
	}
	return chunks
}

// sealed puts a stream together with checksums that fit.
func sealed(preamble []byte, chunks [][]byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	out := bytes.Clone(preamble)
	crc := crc32.Checksum(preamble[:12], table)
	for _, c := range chunks {
		crc = crc32.Update(crc, table, c)
		out = binary.LittleEndian.AppendUint32(append(out, c...), crc)
	}
	return out
}

// More than the memory of the Pebble that it is applied to, cut short near its end.
func TestRestore_IncrementCutShortAppliesNothing(t *testing.T) {
	o := newOrigin(t)
	o.set("n", "0")
	full, first := o.full(), o.log.Last()
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for i := range 80 {
		o.set("n", fmt.Sprint(i+1))
		o.set(fmt.Sprintf("k%03d", i), string(noise))
	}
	incremental := o.since(first)
	dir := filepath.Join(t.TempDir(), "db")
	_, err := snapshot.Restore(t.Context(), bytes.NewReader(full), dir, restoreOptions())
	must(t, err)
	_, err = snapshot.Restore(t.Context(), bytes.NewReader(incremental[:len(incremental)-100]), dir, restoreOptions())
	if !errors.Is(err, snapshot.ErrDamaged) {
		t.Fatalf("restored: %v", err)
	}
	same(t, user(keysIn(t, dir)), map[string]string{"n": "0"})
}
