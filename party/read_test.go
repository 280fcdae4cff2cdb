package party_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// TestDB_BadKeyHarmsNobodyElse: reads that happen to travel together fail for
// themselves.
func TestDB_BadKeyHarmsNobodyElse(t *testing.T) {
	cmp := *pebble.DefaultComparer
	cmp.ValidateKey = func(k []byte) error {
		if bytes.HasPrefix(k, []byte("bad")) {
			return errors.New("such keys are not allowed")
		}
		return nil
	}
	_, db := pair(t, &party.Options{Pebble: &pebble.Options{Comparer: &cmp}})
	set(t, db, "good", "v")
	var readers sync.WaitGroup
	for i := range 32 {
		readers.Go(func() {
			for range 100 {
				if i == 0 {
					if _, err := db.GetMany(within(t), [][]byte{[]byte("good"), []byte("bad")}); err == nil {
						t.Error("a key that is not allowed was read")
					}
					continue
				}
				if v, err := db.Get(within(t), []byte("good")); err != nil || string(v) != "v" {
					t.Errorf("%q, %v", v, err)
					return
				}
			}
		})
	}
	readers.Wait()
}

// TestDB_LargeReads: values of all sizes are read by many callers at once, alone
// and together, while leaders are killed.
func TestDB_LargeReads(t *testing.T) {
	dir := newDir(t)
	leader := start(t, config{Dir: dir})
	db := open(t, dir, nil)
	hasRole(t, db, party.Following)
	sizes := []int{0, 1, 100, 70 << 10, 600 << 10, 2 << 20, 5 << 20}
	var keys [][]byte
	for i, size := range sizes {
		keys = append(keys, fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil, "absent%d", i))
		must(t, db.Set(within(t), keys[2*i], pattern(size), nil))
	}
	check := func(i int, v []byte) {
		if i%2 == 1 && v != nil || i%2 == 0 && (v == nil || !bytes.Equal(v, pattern(sizes[i/2]))) {
			t.Errorf("%s: %d bytes", keys[i], len(v))
		}
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 24 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if r%6 == 0 {
					all, err := db.GetMany(within(t), keys)
					if err != nil || len(all) != len(keys) {
						t.Errorf("%d values, %v", len(all), err)
						return
					}
					for k, v := range all {
						check(k, v)
					}
					continue
				}
				k := i % len(keys)
				v, err := db.Get(within(t), keys[k])
				if err != nil && !errors.Is(err, pebble.ErrNotFound) {
					t.Error(err)
					return
				}
				check(k, v)
			}
		})
	}
	for range 3 {
		next := start(t, config{Dir: dir})
		leader.kill()
		set(t, db, "after", "a kill")
		must(t, db.Resign(within(t))) // if it is this handle that leads now
		leader = next
	}
	close(stop)
	readers.Wait()
}
