package party_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/party"
)

func TestDB_Conforms(t *testing.T) {
	inEveryRole(t, func(t *testing.T, db *party.DB) {
		for _, c := range []struct {
			name string
			test func(t *testing.T, db *party.DB)
		}{
			{"absent and empty", absentAndEmpty},
			{"nil and empty keys", emptyKeys},
			{"delete", deletes},
			{"delete range", deleteRanges},
			{"merge", merges},
			{"apply", applies},
			{"compare and swap", swaps},
			{"reserved keys", reservedKeys},
			{"unsupported operations", unsupported},
			{"too large", tooLarge},
			{"reused slices", reusedSlices},
			{"dead contexts", deadContexts},
			{"sizes", sizes},
			{"large batch", largeBatch},
			{"status", statusOfAll},
		} {
			t.Run(c.name, func(t *testing.T) {
				must(t, db.Delete(within(t), nil, pebble.NoSync))
				must(t, db.DeleteRange(within(t), lowest, []byte("\xff\xff\xff"), pebble.NoSync))
				c.test(t, db)
			})
		}
	})
}

func absentAndEmpty(t *testing.T, db *party.DB) {
	ctx := within(t)
	_, err := db.Get(ctx, []byte("none"))
	want(t, err, pebble.ErrNotFound)
	has, err := db.Has(ctx, []byte("none"))
	if has || err != nil {
		t.Errorf("Has of an absent key: %t, %v", has, err)
	}
	for name, value := range map[string][]byte{"nil": nil, "empty": {}} {
		must(t, db.Set(ctx, []byte(name), value, nil))
		v, err := db.Get(ctx, []byte(name))
		if err != nil || v == nil || len(v) != 0 {
			t.Errorf("Get of a value that is %s: %#v, %v", name, v, err)
		}
		has, err := db.Has(ctx, []byte(name))
		if !has || err != nil {
			t.Errorf("Has of a value that is %s: %t, %v", name, has, err)
		}
	}
	values, err := db.GetMany(ctx, [][]byte{[]byte("empty"), []byte("none"), []byte("nil"), []byte("empty")})
	must(t, err)
	for i, there := range []bool{true, false, true, true} {
		if (values[i] != nil) != there || len(values[i]) != 0 {
			t.Errorf("GetMany gave %#v for key %d", values[i], i)
		}
	}
	for _, keys := range [][][]byte{nil, {}} {
		if values, err := db.GetMany(ctx, keys); len(values) != 0 || err != nil {
			t.Errorf("GetMany of nothing: %v, %v", values, err)
		}
	}
	if got := scan(t, db, nil); !slices.Equal(got, []string{"empty=", "nil="}) {
		t.Errorf("iterator: %q", got)
	}
}

func emptyKeys(t *testing.T, db *party.DB) {
	ctx := within(t)
	must(t, db.Set(ctx, nil, []byte("a"), nil))
	expect(t, db, "", "a")
	must(t, db.Set(ctx, []byte{}, []byte("b"), nil))
	v, err := db.Get(ctx, nil)
	if err != nil || string(v) != "b" {
		t.Errorf("Get(nil): %q, %v", v, err)
	}
	if swapped, err := db.CompareAndSwap(ctx, nil, []byte("b"), []byte("c"), nil); !swapped || err != nil {
		t.Errorf("CompareAndSwap(nil): %t, %v", swapped, err)
	}
	if got := scan(t, db, nil); !slices.Equal(got, []string{"=c"}) {
		t.Errorf("iterator: %q", got)
	}
	must(t, db.Delete(ctx, nil, nil))
	_, err = db.Get(ctx, []byte{})
	want(t, err, pebble.ErrNotFound)
}

func deletes(t *testing.T, db *party.DB) {
	ctx := within(t)
	set(t, db, "a", "1")
	for range 2 { // deleting what is not there is no error
		must(t, db.Delete(ctx, []byte("a"), pebble.NoSync))
		_, err := db.Get(ctx, []byte("a"))
		want(t, err, pebble.ErrNotFound)
	}
}

func deleteRanges(t *testing.T, db *party.DB) {
	ctx := within(t)
	for _, c := range []struct {
		name       string
		start, end []byte
		left       []string
	}{
		{"middle", []byte("b"), []byte("d"), []string{"a=1", "d=4"}},
		{"from nil", lowest, []byte("b"), []string{"b=2", "c=3", "d=4"}},
		{"empty range", []byte("b"), []byte("b"), []string{"a=1", "b=2", "c=3", "d=4"}},
		{"turned round", []byte("d"), []byte("b"), []string{"a=1", "b=2", "c=3", "d=4"}},
		{"to nil", []byte("b"), nil, []string{"a=1", "b=2", "c=3", "d=4"}},
		{"everything", lowest, []byte("\xff\xff\xff\xff"), nil},
	} {
		for i, k := range []string{"a", "b", "c", "d"} {
			must(t, db.Set(ctx, []byte(k), fmt.Append(nil, i+1), pebble.NoSync))
		}
		if err := db.DeleteRange(ctx, c.start, c.end, nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := scan(t, db, nil); !slices.Equal(got, c.left) {
			t.Errorf("%s: %q is left, want %q", c.name, got, c.left)
		}
	}
}

func merges(t *testing.T, db *party.DB) {
	ctx := within(t)
	must(t, db.Merge(ctx, []byte("m"), []byte("3"), nil))
	set(t, db, "m", "10")
	must(t, db.Merge(ctx, []byte("m"), []byte("-4"), pebble.NoSync))
	must(t, db.Merge(ctx, []byte("m"), []byte("1"), nil))
	expect(t, db, "m", "7")
}

func applies(t *testing.T, db *party.DB) {
	ctx := within(t)
	set(t, db, "x1", "old")
	var b pebble.Batch
	must(t, b.Set([]byte("a"), []byte("1"), nil))
	must(t, b.Merge([]byte("a"), []byte("5"), nil))
	must(t, b.Set([]byte("gone"), nil, nil))
	must(t, b.Delete([]byte("gone"), nil))
	must(t, b.Set([]byte("single"), nil, nil))
	must(t, b.SingleDelete([]byte("single"), nil))
	must(t, b.DeleteRange([]byte("x"), []byte("y"), nil))
	first, err := db.Apply(ctx, &b, nil)
	must(t, err)
	if got := scan(t, db, nil); !slices.Equal(got, []string{"a=6"}) {
		t.Errorf("after a batch: %q", got)
	}
	// A batch is not changed and may be applied again.
	second, err := db.Apply(ctx, &b, pebble.NoSync)
	must(t, err)
	if first == 0 || second <= first {
		t.Errorf("sequence numbers %d, then %d", first, second)
	}
	var empty pebble.Batch
	newest, err := db.Apply(ctx, &empty, nil)
	if newest != second || err != nil {
		t.Errorf("empty batch: %d, %v, want %d", newest, err, second)
	}
}

func swaps(t *testing.T, db *party.DB) {
	for _, c := range []struct {
		name          string
		is, old, new_ []byte
		swapped       bool
		then          []byte
	}{
		{"absent as expected", nil, nil, []byte("n"), true, []byte("n")},
		{"absent, a value expected", nil, []byte("o"), []byte("n"), false, nil},
		{"absent, an empty value expected", nil, []byte{}, []byte("n"), false, nil},
		{"empty as expected", []byte{}, []byte{}, []byte("n"), true, []byte("n")},
		{"empty, none expected", []byte{}, nil, []byte("n"), false, []byte{}},
		{"value as expected", []byte("o"), []byte("o"), []byte("n"), true, []byte("n")},
		{"another value", []byte("p"), []byte("o"), []byte("n"), false, []byte("p")},
		{"value, none expected", []byte("p"), nil, []byte("n"), false, []byte("p")},
		{"to empty", []byte("o"), []byte("o"), []byte{}, true, []byte{}},
		{"to nothing", []byte("o"), []byte("o"), nil, true, nil},
		{"nothing to nothing", nil, nil, nil, true, nil},
	} {
		ctx := within(t)
		key := []byte(c.name)
		if c.is != nil {
			must(t, db.Set(ctx, key, c.is, nil))
		}
		swapped, err := db.CompareAndSwap(ctx, key, c.old, c.new_, nil)
		if swapped != c.swapped || err != nil {
			t.Errorf("%s: swapped %t, %v", c.name, swapped, err)
		}
		values, err := db.GetMany(ctx, [][]byte{key})
		must(t, err)
		if v := values[0]; (v == nil) != (c.then == nil) || !bytes.Equal(v, c.then) {
			t.Errorf("%s: the value is %#v then", c.name, v)
		}
	}
}

func reservedKeys(t *testing.T, db *party.DB) {
	ctx := within(t)
	reserved := []byte(apply.ReservedPrefix + "id\x00")
	want(t, db.Set(ctx, reserved, nil, nil), party.ErrReservedKey)
	want(t, db.Delete(ctx, reserved, nil), party.ErrReservedKey)
	want(t, db.Merge(ctx, reserved, []byte("1"), nil), party.ErrReservedKey)
	_, err := db.CompareAndSwap(ctx, reserved, nil, []byte("1"), nil)
	want(t, err, party.ErrReservedKey)
	var b pebble.Batch
	must(t, b.Set([]byte("a"), nil, nil))
	must(t, b.SingleDelete(reserved, nil))
	_, err = db.Apply(ctx, &b, nil)
	want(t, err, party.ErrReservedKey)
	_, err = db.Get(ctx, reserved)
	want(t, err, pebble.ErrNotFound)
	if has, err := db.Has(ctx, reserved); has || err != nil {
		t.Errorf("Has of a reserved key: %t, %v", has, err)
	}
	// Keys around ours are the user's; a range across ours leaves them alone.
	before, after := []byte("\xff\xfe"), []byte("\xff\xff\xff")
	must(t, db.Set(ctx, before, []byte("1"), nil))
	must(t, db.Set(ctx, after, []byte("2"), nil))
	if got := scan(t, db, nil); !slices.Equal(got, []string{"\xff\xfe=1", "\xff\xff\xff=2"}) {
		t.Errorf("iterator: %q", got)
	}
	it, err := db.NewIter(ctx, nil)
	must(t, err)
	if !it.SeekGE(reserved) || !bytes.Equal(it.Key(), after) {
		t.Errorf("SeekGE to a reserved key: %q", it.Key())
	}
	if !it.SeekLT(after) || !bytes.Equal(it.Key(), before) {
		t.Errorf("SeekLT across reserved keys: %q", it.Key())
	}
	must(t, it.Close())
	must(t, db.DeleteRange(ctx, []byte("\xff"), []byte("\xff\xff\xff\xff"), nil))
	if got := scan(t, db, nil); got != nil {
		t.Errorf("iterator: %q", got)
	}
	set(t, db, "still", "alive")
}

func unsupported(t *testing.T, db *party.DB) {
	for name, fill := range map[string]func(b *pebble.Batch) error{
		"RangeKeySet":    func(b *pebble.Batch) error { return b.RangeKeySet([]byte("a"), []byte("b"), nil, []byte("v"), nil) },
		"RangeKeyDelete": func(b *pebble.Batch) error { return b.RangeKeyDelete([]byte("a"), []byte("b"), nil) },
		"LogData":        func(b *pebble.Batch) error { return b.LogData([]byte("data"), nil) },
		"DeleteSized":    func(b *pebble.Batch) error { return b.DeleteSized([]byte("a"), 1, nil) },
	} {
		var b pebble.Batch
		must(t, b.Set([]byte("with "+name), nil, nil))
		must(t, fill(&b))
		if _, err := db.Apply(within(t), &b, nil); err == nil {
			t.Errorf("%s was applied", name)
		} else {
			want(t, err, party.ErrUnsupported)
		}
	}
	if got := scan(t, db, nil); got != nil {
		t.Errorf("parts of refused batches were applied: %q", got)
	}
}

func reusedSlices(t *testing.T, db *party.DB) {
	ctx := within(t)
	key, value := make([]byte, 8), make([]byte, 8)
	fill := func(b byte) {
		for i := range key {
			key[i], value[i] = b, b
		}
	}
	keys := [][]byte{key}
	var b pebble.Batch
	for c := byte('a'); c <= 'h'; c++ {
		fill(c)
		switch c % 3 {
		case 0:
			must(t, db.Set(ctx, key, value, pebble.NoSync))
		case 1:
			_, err := db.CompareAndSwap(ctx, key, nil, value, pebble.NoSync)
			must(t, err)
		case 2:
			b.Reset()
			must(t, b.Set(key, value, nil))
			_, err := db.Apply(ctx, &b, pebble.NoSync)
			must(t, err)
		}
		fill('?')
	}
	for c := byte('a'); c <= 'h'; c++ {
		fill(c)
		values, err := db.GetMany(ctx, keys)
		must(t, err)
		v, err := db.Get(ctx, key)
		must(t, err)
		if !bytes.Equal(v, value) || !bytes.Equal(values[0], value) {
			t.Errorf("key %q is %q and %q", key, v, values[0])
		}
		// What is returned belongs to the caller.
		clear(v)
		clear(values[0])
		_ = append(values[0], "over the end"...)
		if v, err := db.Get(ctx, key); err != nil || !bytes.Equal(v, value) {
			t.Errorf("key %q is %q after its old value was overwritten, %v", key, v, err)
		}
	}
}

func deadContexts(t *testing.T, db *party.DB) {
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	everyCall(dead, db, func(name string, err error) {
		if name != "Status" && name != "Resign" || err != nil { // those two may need no waiting
			if err == nil {
				t.Errorf("%s with a dead context worked", name)
			} else {
				want(t, err, context.Canceled)
			}
		}
	})
	if got := scan(t, db, nil); got != nil {
		t.Errorf("calls with a dead context wrote: %q", got)
	}
	ctx, cancel := context.WithCancel(within(t))
	set(t, db, "a", "1")
	it, err := db.NewIter(ctx, nil)
	must(t, err)
	cancel()
	if it.First() {
		t.Error("an iterator moved although its context has ended")
	}
	want(t, it.Error(), context.Canceled)
	want(t, it.Close(), context.Canceled)
}

func statusOfAll(t *testing.T, db *party.DB) {
	ctx := within(t)
	var b pebble.Batch
	must(t, b.Set([]byte("a"), nil, nil))
	seq, err := db.Apply(ctx, &b, nil)
	must(t, err)
	var s party.Status
	until(t, "what is committed to be applied", func() bool {
		s, err = db.Status(ctx)
		must(t, err)
		return s.Applied >= seq
	})
	if !s.Responding || s.Committed < seq || s.Term == 0 || s.LeaderPID == 0 || s.FirstSeq == 0 || len(s.Database) != 32 {
		t.Errorf("status after sequence number %d: %+v", seq, s)
	}
}
