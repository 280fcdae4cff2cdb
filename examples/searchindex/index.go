package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// index is an inverted index. It holds
//
//	d<key>          → the words of the value, to take them out again
//	w<word> 00 <key> → nothing
//	position        → number of the last event
type index struct{ db *pebble.DB }

func openIndex(dir string) (*index, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	return &index{db}, err
}

func (ix *index) Close() error { return ix.db.Close() }

// clear empties the index.
func (ix *index) clear() error {
	return ix.db.DeleteRange([]byte{0}, []byte{0xff}, pebble.Sync)
}

// apply changes the index as an event says, and notes its number with it. Without
// sync a crash may take it; then the event comes again.
func (ix *index) apply(seq uint64, ops []party.Op, sync bool) error {
	b := ix.db.NewIndexedBatch()
	defer b.Close()
	for _, op := range ops {
		var err error
		switch op.Kind {
		case party.OpSet:
			if err = remove(b, op.Key); err == nil {
				err = put(b, op.Key, op.Value)
			}
		case party.OpMerge:
			err = errors.New("searchindex: what a Merge makes of a value only its database knows")
		case party.OpDelete, party.OpSingleDelete:
			err = remove(b, op.Key)
		case party.OpDeleteRange:
			err = removeRange(b, op.Key, op.End)
		}
		if err != nil {
			return err
		}
	}
	if err := b.Set(keyPosition, binary.BigEndian.AppendUint64(nil, seq), nil); err != nil {
		return err
	}
	return b.Commit(&pebble.WriteOptions{Sync: sync})
}

// add indexes a key that is not in the index.
func (ix *index) add(key, value []byte) error {
	b := ix.db.NewBatch()
	defer b.Close()
	if err := put(b, key, value); err != nil {
		return err
	}
	return b.Commit(pebble.NoSync)
}

// find returns the keys whose values have the word.
func (ix *index) find(word string) (keys []string, err error) {
	from := posting(strings.ToLower(word), nil)
	to := append(bytes.Clone(from[:len(from)-1]), 1)
	it, err := ix.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid(); it.Next() {
		keys = append(keys, string(it.Key()[len(from):]))
	}
	return keys, it.Close()
}

func put(b *pebble.Batch, key, value []byte) error {
	words := split(string(value))
	err := b.Set(document(key), []byte(strings.Join(words, " ")), nil)
	for _, w := range words {
		err = errors.Join(err, b.Set(posting(w, key), nil, nil))
	}
	return err
}

func remove(b *pebble.Batch, key []byte) error {
	v, closer, err := b.Get(document(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	words := strings.Fields(string(v))
	err = errors.Join(closer.Close(), b.Delete(document(key), nil))
	for _, w := range words {
		err = errors.Join(err, b.Delete(posting(w, key), nil))
	}
	return err
}

func removeRange(b *pebble.Batch, start, end []byte) error {
	it, err := b.NewIter(&pebble.IterOptions{LowerBound: document(start), UpperBound: document(end)})
	if err != nil {
		return err
	}
	var keys [][]byte
	for it.First(); it.Valid(); it.Next() {
		keys = append(keys, bytes.Clone(it.Key()[1:]))
	}
	if err := it.Close(); err != nil {
		return err
	}
	for _, k := range keys {
		if err := remove(b, k); err != nil {
			return err
		}
	}
	return nil
}

func document(key []byte) []byte { return append([]byte("d"), key...) }

func posting(word string, key []byte) []byte {
	p := append([]byte("w"), word...)
	return append(append(p, 0), key...)
}

// split returns the different words of a text, in lower case.
func split(text string) []string {
	words := map[string]bool{}
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		words[w] = true
	}
	return slices.Sorted(maps.Keys(words))
}

// silent keeps Pebble's log off the terminal.
type silent struct{}

func (silent) Infof(string, ...any)      {}
func (silent) Errorf(string, ...any)     {}
func (silent) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
