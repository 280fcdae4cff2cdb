package apply_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// model is the key space as a map: what Pebble must hold, by other means.
type model map[string]string

func (m model) apply(t testing.TB, repr []byte) {
	t.Helper()
	ops := apply.ReadOps(repr)
	for op, ok := ops.Next(); ok; op, ok = ops.Next() {
		k, v := string(op.Key), string(op.Value)
		switch op.Kind {
		case pebble.InternalKeyKindSet:
			m[k] = v
		case pebble.InternalKeyKindMerge:
			m[k] += v
		case pebble.InternalKeyKindRangeDelete:
			maps.DeleteFunc(m, func(x, _ string) bool { return x >= k && x < v })
		default:
			delete(m, k)
		}
	}
	must(t, ops.Err())
}

func (m model) pairs() (all []pair) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, pair{k, m[k]})
	}
	return all
}

func (m model) holds(c *apply.Condition) bool {
	v, ok := m[string(c.Key)]
	return ok != c.Absent && (!ok || v == string(c.Value))
}

// fold is the state that log entries lead to.
func fold(t testing.TB, entries map[uint64]logged) model {
	t.Helper()
	m := model{}
	for _, seq := range slices.Sorted(maps.Keys(entries)) {
		if entries[seq].payload == "" {
			continue
		}
		e, err := apply.DecodeEntry([]byte(entries[seq].payload))
		must(t, err)
		m.apply(t, e.Repr)
	}
	return m
}
