package party

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Get returns the value of key. The error is pebble.ErrNotFound if there is none.
func (db *DB) Get(ctx context.Context, key []byte) ([]byte, error) {
	values, err := db.read(ctx, [][]byte{key})
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, pebble.ErrNotFound
	}
	return values[0], nil
}

// GetMany returns the values of keys in their order, nil for a key that is
// missing and an empty slice for an empty value. It is not a snapshot: writes may
// fall between two of the keys.
func (db *DB) GetMany(ctx context.Context, keys [][]byte) ([][]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	return db.read(ctx, keys)
}

// Has tells whether key exists.
func (db *DB) Has(ctx context.Context, key []byte) (bool, error) {
	values, err := db.read(ctx, [][]byte{key})
	return err == nil && values[0] != nil, err
}

func (db *DB) read(ctx context.Context, keys [][]byte) ([][]byte, error) {
	if l := db.leading.Load(); l != nil && ctx.Err() == nil {
		values, err := l.get(ctx, keys)
		if !errors.Is(err, errLost) {
			return values, db.explain(err)
		}
	}
	if values, ok, err := db.local.get(ctx, keys...); ok {
		return values, err
	}
	size, bytes := 16, 0
	for _, k := range keys {
		size += len(k) + 5
		bytes += len(k)
	}
	if size > maxRequest {
		return nil, fmt.Errorf("%w: the keys have %d bytes, the limit is %d", ErrTooLarge, size, MaxBatch)
	}
	// Copies: a read whose caller has left may still be on its way.
	c := &call{keys: make([][]byte, len(keys)), size: size}
	copies := make([]byte, 0, bytes)
	for i, k := range keys {
		copies = append(copies, k...)
		c.keys[i] = copies[len(copies)-len(k):]
	}
	if err := db.reads.do(ctx, c); err != nil {
		return nil, db.explain(err)
	}
	return c.values, nil
}

// Set sets key to value.
func (db *DB) Set(ctx context.Context, key, value []byte, o *pebble.WriteOptions) error {
	if err := checkKey(key, value); err != nil {
		return err
	}
	_, err := db.write(ctx, apply.ReprSet(key, value), nil, o)
	return err
}

// Delete removes key. It is no error if key does not exist.
func (db *DB) Delete(ctx context.Context, key []byte, o *pebble.WriteOptions) error {
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := db.write(ctx, apply.ReprDelete(key), nil, o)
	return err
}

// DeleteRange removes the keys from start up to, but not including, end.
//
// In a program that is built with -race begin at "\x00" instead of the empty key:
// Pebble's own checks, which such a build turns on, lose ranges that begin there, or
// panic (TestPebble_DeletesFromTheEmptyKey in package apply). Other builds are right.
func (db *DB) DeleteRange(ctx context.Context, start, end []byte, o *pebble.WriteOptions) error {
	if err := checkSize(len(start) + len(end)); err != nil {
		return err
	}
	_, err := db.write(ctx, apply.ReprDeleteRange(start, end), nil, o)
	return err
}

// Merge merges value into key with the Merger of the database.
func (db *DB) Merge(ctx context.Context, key, value []byte, o *pebble.WriteOptions) error {
	if err := checkKey(key, value); err != nil {
		return err
	}
	_, err := db.write(ctx, apply.ReprMerge(key, value), nil, o)
	return err
}

// Apply applies a batch as a whole and returns the sequence number of its entry
// in the log. The zero value of pebble.Batch will do: it needs no database. A
// batch may hold Set, Delete, SingleDelete, DeleteRange and Merge, else the
// error is ErrUnsupported; SingleDelete works as Delete. b is not changed and may be applied again.
//
// An empty batch is not logged; with Sync it makes every write that was
// acknowledged before durable, also those made with NoSync. It returns the
// newest sequence number.
func (db *DB) Apply(ctx context.Context, b *pebble.Batch, o *pebble.WriteOptions) (seq uint64, err error) {
	repr := b.Repr()
	if len(repr) > MaxBatch {
		return 0, fmt.Errorf("%w: the batch has %d bytes, the limit is %d", ErrTooLarge, len(repr), MaxBatch)
	}
	if _, err := apply.CheckRepr(repr); err != nil {
		return 0, wrapError(err)
	}
	answer, err := db.write(ctx, append([]byte(nil), repr...), nil, o)
	return answer.Seq, err
}

// CompareAndSwap sets key to new if its value is old, and tells whether it did.
// nil for old means that key must be absent, nil for new that it is deleted; an
// empty slice is an empty value.
func (db *DB) CompareAndSwap(ctx context.Context, key, old, new []byte, o *pebble.WriteOptions) (swapped bool, err error) {
	if err := checkKey(key, old, new); err != nil {
		return false, err
	}
	repr := apply.ReprDelete(key)
	if new != nil {
		repr = apply.ReprSet(key, new)
	}
	cond := &apply.Condition{
		Key:    append([]byte(nil), key...),
		Absent: old == nil,
		Value:  append([]byte(nil), old...),
	}
	answer, err := db.write(ctx, repr, cond, o)
	return answer.Outcome == apply.OutcomeDone, err
}

// checkKey refuses a key that is ours, and sizes as checkSize does.
func checkKey(key []byte, values ...[]byte) error {
	if apply.IsReserved(key) {
		return fmt.Errorf("%w: %.100q", ErrReservedKey, key)
	}
	n := len(key)
	for _, v := range values {
		n += len(v)
	}
	return checkSize(n)
}

// checkSize refuses n bytes that could not be encoded, before they are copied.
func checkSize(n int) error {
	if n > MaxBatch-64 {
		return fmt.Errorf("%w: key and value have %d bytes, the limit is %d", ErrTooLarge, n, MaxBatch-64)
	}
	return nil
}

// write has a batch judged, logged and applied by the leader. repr and cond are
// handed over: a write whose caller has left may still be on its way.
func (db *DB) write(ctx context.Context, repr []byte, cond *apply.Condition, o *pebble.WriteOptions) (apply.Answer, error) {
	w := &struct { // in one allocation
		call
		cmd apply.Command
	}{cmd: apply.Command{Origin: db.origin, Sync: o.GetSync(), Cond: cond, Repr: repr}}
	c := &w.call
	c.cmd, c.size = &w.cmd, w.cmd.Size()
	if err := db.writes.do(ctx, c); err != nil {
		return apply.Answer{}, db.explain(err)
	}
	switch c.answer.Outcome {
	case apply.OutcomeDone, apply.OutcomeNotSwapped:
		return c.answer, nil
	case apply.OutcomeForgotten:
		return apply.Answer{}, ErrUnknownOutcome
	case apply.OutcomeRefused:
		return apply.Answer{}, wrapError(c.answer.Err)
	}
	return apply.Answer{}, fmt.Errorf("party: outcome %d of a write", c.answer.Outcome)
}
