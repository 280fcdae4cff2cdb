//go:build mutation

package apply

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// applyFirst applies the first operation of b, waits a little, and returns the
// others.
func (m *Machine) applyFirst(b *pebble.Batch) *pebble.Batch {
	first, rest := m.store.db.NewBatch(), m.store.db.NewBatch()
	for to, r := first, b.Reader(); ; to = rest {
		kind, key, value, ok, err := r.Next()
		if err != nil {
			panic(err)
		}
		if !ok {
			break
		}
		add(to, kind, key, value)
	}
	if err := m.store.db.Apply(first, pebble.NoSync); err != nil {
		panic(err)
	}
	<-time.After(200 * time.Microsecond)
	return rest
}

// dropLast drops the last operation of a batch of three or more.
func dropLast(b *pebble.Batch) {
	if b.Count() < 3 {
		return
	}
	var short pebble.Batch
	for r := b.Reader(); short.Count()+1 < b.Count(); {
		kind, key, value, _, err := r.Next()
		if err != nil {
			panic(err)
		}
		add(&short, kind, key, value)
	}
	if err := b.SetRepr(short.Repr()); err != nil {
		panic(err)
	}
}

func add(b *pebble.Batch, kind pebble.InternalKeyKind, key, value []byte) {
	var err error
	switch kind {
	case pebble.InternalKeyKindSet:
		err = b.Set(key, value, nil)
	case pebble.InternalKeyKindMerge:
		err = b.Merge(key, value, nil)
	case pebble.InternalKeyKindDelete:
		err = b.Delete(key, nil)
	case pebble.InternalKeyKindRangeDelete:
		err = b.DeleteRange(key, value, nil)
	default:
		panic(kind)
	}
	if err != nil {
		panic(err)
	}
}

// Fence keeps this process's Pebble off the disk from now on.
func (m *Machine) Fence() { m.store.fs.lower() }
