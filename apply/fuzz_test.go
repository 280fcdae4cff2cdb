package apply_test

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"

	"github.com/pebbleparty/pebbleparty/apply"
)

func FuzzDecodeCommand(f *testing.F) {
	f.Add(apply.AppendCommand(nil, &apply.Command{Number: 7, Since: 300, Sync: true, Repr: apply.ReprSet([]byte("k"), []byte("v"))}))
	f.Add(apply.AppendCommand(nil, &apply.Command{Number: 1, Retry: true, Repr: apply.ReprDelete([]byte("k")), Cond: &apply.Condition{Key: []byte("k"), Absent: true}}))
	f.Add(apply.AppendCommand(nil, &apply.Command{Number: 1, Cond: &apply.Condition{Key: []byte("k"), Value: []byte("v")}}))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, src []byte) {
		var c, d apply.Command
		rest, err := apply.DecodeCommand(src, &c)
		if err != nil {
			return
		}
		again := apply.AppendCommand(nil, &c)
		if len(again) > len(src)-len(rest) {
			t.Fatalf("%x grew to %x", src[:len(src)-len(rest)], again)
		}
		rest, err = apply.DecodeCommand(append(again, "rest"...), &d)
		if err != nil || string(rest) != "rest" {
			t.Fatal(err, rest)
		}
		cond := c.Cond == nil && d.Cond == nil || c.Cond != nil && d.Cond != nil && c.Cond.Absent == d.Cond.Absent &&
			bytes.Equal(c.Cond.Key, d.Cond.Key) && bytes.Equal(c.Cond.Value, d.Cond.Value)
		if c.Number != d.Number || c.Since != d.Since || c.Sync != d.Sync || c.Retry != d.Retry || !cond || !bytes.Equal(c.Repr, d.Repr) {
			t.Fatalf("%+v became %+v", c, d)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	n := lead(f, small(memFS(f)))
	c := newClient("fuzz")
	n.group(c.set("k", "v"), c.cmd(apply.ReprDeleteRange([]byte("a"), []byte("b"))))
	for _, e := range n.g.Entries() {
		f.Add(bytes.Clone(e))
	}
	must(f, n.g.Discard())
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, src []byte) {
		e, err := apply.DecodeEntry(src)
		if err != nil {
			return
		}
		if e.Low > e.Number {
			t.Fatalf("low %d is above %d", e.Low, e.Number)
		}
		count, err := apply.CheckRepr(e.Repr)
		if err != nil || !bytes.HasSuffix(src, e.Repr) {
			t.Fatal(count, err)
		}
	})
}

func FuzzReadOps(f *testing.F) {
	f.Add(apply.ReprSet([]byte("k"), []byte("v")))
	f.Add(apply.ReprDeleteRange([]byte("a"), []byte("b")))
	f.Add(apply.ReprMerge(nil, bytes.Repeat([]byte("x"), 300)))
	f.Add(batch(f, func(b *pebble.Batch) error { return b.LogData([]byte("x"), nil) }))
	f.Add(append(apply.ReprDelete(nil)[:13], 0x80, 0x80, 0x80, 0x80, 0x80, 0))
	f.Fuzz(func(t *testing.T, repr []byte) {
		count, err := apply.CheckRepr(repr)
		ops := apply.ReadOps(repr)
		var ours []apply.Op
		for op, ok := ops.Next(); ok; op, ok = ops.Next() {
			ours = append(ours, op)
		}
		if err != nil {
			return // Pebble's reader may read past the end of these
		}
		if ops.Err() != nil || len(ours) != count {
			t.Fatal(ops.Err(), len(ours), count)
		}
		r := batchrepr.Read(repr)
		for _, op := range ours {
			kind, key, value, ok, err := r.Next()
			if !ok || err != nil || kind != op.Kind || !bytes.Equal(key, op.Key) || !bytes.Equal(value, op.Value) {
				t.Fatalf("%v %q %q, Pebble reads %v %q %q %v %v", op.Kind, op.Key, op.Value, kind, key, value, ok, err)
			}
		}
		if _, _, _, ok, err := r.Next(); ok || err != nil {
			t.Fatal("Pebble reads more", err)
		}
	})
}
