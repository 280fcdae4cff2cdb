package party_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// A journal is a file of pairs: a sequence number and a hash of what was written
// under it. What a process that is killed leaves is cut to whole pairs.
const pairSize = 16

func openJournal(path string) (f *os.File, last uint64, err error) {
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		size -= size % pairSize
		err = f.Truncate(size)
	}
	if err == nil && size > 0 {
		b := make([]byte, pairSize)
		if _, err = f.ReadAt(b, size-pairSize); err == nil {
			last = binary.LittleEndian.Uint64(b)
		}
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	return f, last, err
}

func appendPair(w io.Writer, seq, hash uint64) error {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, pairSize), seq)
	_, err := w.Write(binary.LittleEndian.AppendUint64(b, hash))
	return err
}

func readJournal(t testing.TB, path string) (pairs [][2]uint64) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	for ; len(b) >= pairSize; b = b[pairSize:] {
		pairs = append(pairs, [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])})
	}
	return pairs
}

// hashOps hashes the operations of a batch representation.
func hashOps(repr []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(repr[12:])
	return h.Sum64()
}

// hashEvent is hashOps of the batch that an event tells of.
func hashEvent(ev party.Event) (uint64, error) {
	var b pebble.Batch
	var err error
	for _, op := range ev.Ops {
		switch op.Kind {
		case party.OpSet:
			err = errors.Join(err, b.Set(op.Key, op.Value, nil))
		case party.OpMerge:
			err = errors.Join(err, b.Merge(op.Key, op.Value, nil))
		case party.OpDelete:
			err = errors.Join(err, b.Delete(op.Key, nil))
		case party.OpSingleDelete:
			err = errors.Join(err, b.SingleDelete(op.Key, nil))
		case party.OpDeleteRange:
			err = errors.Join(err, b.DeleteRange(op.Key, op.End, nil))
		}
	}
	return hashOps(b.Repr()), err
}

// pump writes batches with N goroutines until it is told to stop, and keeps a
// journal in the file Value of what was acknowledged.
func (p *child) pump(ctx context.Context, r request) error {
	f, _, err := openJournal(string(r.Value))
	if err != nil {
		return err
	}
	defer f.Close()
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for g := range r.N {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-p.stop:
					return
				default:
				}
				var b pebble.Batch
				err := b.Set(fmt.Appendf(nil, "%d-%d-%d", os.Getpid(), g, i), fmt.Append(nil, i), nil)
				if i%5 == 0 {
					err = errors.Join(err, b.DeleteRange(fmt.Appendf(nil, "%d-%d-%d", os.Getpid(), g, max(i-10, 0)), fmt.Appendf(nil, "%d-%d-%d", os.Getpid(), g, i), nil))
				}
				o := pebble.NoSync
				if i%50 == 0 {
					o = pebble.Sync
				}
				var seq uint64
				if err == nil {
					seq, err = p.db.Apply(ctx, &b, o)
				}
				mu.Lock()
				if err == nil {
					err = appendPair(f, seq, hashOps(b.Repr()))
				}
				failed = errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return failed
}

// tail subscribes from N, or from where the journal in the file Value ends, and
// goes on with that journal until it sees the key Key. It returns how many events
// it saw.
func (p *child) tail(ctx context.Context, r request) (int, error) {
	f, last, err := openJournal(string(r.Value))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	from := uint64(r.N)
	if last > 0 {
		from = last + 1
	}
	s, err := p.db.Subscribe(ctx, &party.SubscribeOptions{From: from})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	w := bufio.NewWriterSize(f, 64*pairSize)
	n := 0
	for ev, err := range s.Events(ctx) {
		if err != nil {
			return n, err
		}
		n++
		hash, err := hashEvent(ev)
		if err == nil {
			err = appendPair(w, ev.Seq, hash)
		}
		if err != nil {
			return n, err
		}
		if string(ev.Ops[0].Key) == string(r.Key) {
			return n, w.Flush()
		}
	}
	return n, errors.New("the events ended")
}

// work takes events under the name Key, of keys that begin with Old, until it sees
// a batch with the key "the end" behind that, which it does not acknowledge, and
// acknowledges every Nth (0: third). It keeps a journal in the file Value: of each
// event it got, and, with a hash of 0, of each that it acknowledged.
func (p *child) work(ctx context.Context, r request) error {
	o := &party.SubscribeOptions{From: 1, Name: string(r.Key), LowerBound: r.Old}
	if len(r.Old) > 0 {
		o.UpperBound = append(bytes.Clone(r.Old), 0xff)
	}
	s, err := p.db.Subscribe(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	f, err := os.OpenFile(string(r.Value), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := appendPair(f, 0, uint64(os.Getpid())); err != nil { // who works from here on
		return err
	}
	n := 0
	for ev, err := range s.Events(ctx) {
		var hash uint64
		if err == nil {
			hash, err = hashEvent(ev)
		}
		if err == nil {
			err = appendPair(f, ev.Seq, hash)
		}
		if err != nil {
			return err
		}
		if string(ev.Ops[0].Key) == string(r.Old)+"the end" {
			return nil
		}
		if n++; n%cmp.Or(r.N, 3) == 0 {
			if err := s.Ack(ctx, ev.Seq); err != nil {
				return err
			}
			if err := appendPair(f, ev.Seq, 0); err != nil {
				return err
			}
		}
	}
	return nil
}
