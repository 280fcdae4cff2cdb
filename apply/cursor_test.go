package apply_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/pebbleparty/pebbleparty/apply"
)

// move is a command of origin 1 that moves a cursor; below 0 means that there is,
// or shall be, none.
func move(number uint64, name string, old, seq int) apply.Command {
	c := apply.Command{Origin: apply.Origin{1}, Number: number, Low: number}
	at := func(n int) *uint64 {
		if n < 0 {
			return nil
		}
		v := uint64(n)
		return &v
	}
	apply.MoveCursor(&c, name, at(old), at(seq))
	return c
}

func outcomes(answers []apply.Answer) (all []apply.Outcome) {
	for _, a := range answers {
		all = append(all, a.Outcome)
	}
	return all
}

// Cursors move from where they stand only, also within a group; a DeleteRange
// over everything leaves them; they come back after a crash, from Pebble or from
// the log, and a command that comes again gets its first answer.
func TestMachine_Cursors(t *testing.T) {
	const done, not = apply.OutcomeDone, apply.OutcomeNotSwapped
	for name, flush := range map[string]bool{"from Pebble": true, "from the log": false} {
		t.Run(name, func(t *testing.T) {
			fs := memFS(t)
			n := lead(t, small(fs))
			got := outcomes(n.commit(t,
				move(1, "a", -1, 5), move(2, "a", -1, 6), move(3, "a", 5, 7), move(4, "a", 5, 8), // a late one
				move(5, "b", 1, 2), move(6, "b", -1, 0), move(7, "c", -1, 9), move(8, "c", 9, -1)))
			if want := []apply.Outcome{done, not, done, not, not, done, done, done}; !reflect.DeepEqual(got, want) {
				t.Fatalf("outcomes %v, want %v", got, want)
			}
			wipe := apply.Command{Origin: apply.Origin{1}, Number: 9, Low: 9, Repr: apply.ReprDeleteRange([]byte{0}, []byte("\xff\xff\xff"))}
			n.commit(t, wipe, move(10, "d", -1, 3))
			want := []apply.Cursor{{Name: "a", Seq: 7}, {Name: "b", Seq: 0}, {Name: "d", Seq: 3}}
			if got := n.m.Cursors(); !reflect.DeepEqual(got, want) {
				t.Fatalf("cursors %v, want %v", got, want)
			}
			must(t, n.log.Sync())
			if flush {
				must(t, n.m.Flush(nil))
			}
			crashed := fs.CrashClone(vfs.CrashCloneCfg{})
			n = lead(t, small(crashed))
			if got := n.m.Cursors(); !reflect.DeepEqual(got, want) {
				t.Fatalf("after a crash: cursors %v, want %v", got, want)
			}
			again := move(10, "d", -1, 3)
			again.Retry, again.Since = true, 1<<40
			if got := outcomes(n.commit(t, again, move(11, "d", 3, 4))); !reflect.DeepEqual(got, []apply.Outcome{done, done}) {
				t.Fatalf("sent again: %v", got)
			}
		})
	}
}

func TestMachine_RefusesOtherCursorCommands(t *testing.T) {
	n := lead(t, small(memFS(t)))
	var full []apply.Command
	for i := range apply.MaxCursors {
		full = append(full, move(uint64(i+1), fmt.Sprint(i), -1, i))
	}
	n.commit(t, full...)
	number := uint64(apply.MaxCursors)
	for name, c := range map[string]struct {
		make func(c *apply.Command)
		want error
	}{
		"too many":         {func(c *apply.Command) {}, apply.ErrCursors},
		"a user's key":     {func(c *apply.Command) { c.Repr = apply.ReprSet([]byte("k"), []byte("12345678")) }, apply.ErrInvalidBatch},
		"another of ours":  {func(c *apply.Command) { c.Repr = apply.ReprDelete([]byte(apply.ReservedPrefix + "id\x00")) }, apply.ErrInvalidBatch},
		"no condition":     {func(c *apply.Command) { c.Cond = nil }, apply.ErrInvalidCommand},
		"an odd condition": {func(c *apply.Command) { c.Cond.Key = []byte("k") }, apply.ErrInvalidCommand},
		"two operations": {func(c *apply.Command) {
			var b pebble.Batch
			must(t, b.SetRepr(c.Repr))
			must(t, b.Set([]byte("k"), nil, nil))
			c.Repr = b.Repr()
		}, apply.ErrInvalidBatch},
		"without the flag": {func(c *apply.Command) { c.Cursor = false }, apply.ErrReservedKey},
	} {
		number++
		cmd := move(number, "one more", -1, 1)
		c.make(&cmd)
		if a := n.commit(t, cmd)[0]; a.Outcome != apply.OutcomeRefused || !errors.Is(a.Err, c.want) {
			t.Errorf("%s: %+v, want %v", name, a, c.want)
		}
	}
}
