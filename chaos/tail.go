package chaos

import (
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Tail writes keys that nobody writes again, most of them with pebble.NoSync: what
// is lost when the power is cut is to be the end of the log, and nothing that a
// write with pebble.Sync came behind.
type Tail struct{}

const tailPrefix = "tail/"

// Name returns "tail".
func (Tail) Name() string { return "tail" }

// Prepare does nothing.
func (Tail) Prepare(context.Context, *party.DB) error { return nil }

// Work writes one key.
func (Tail) Work(ctx context.Context, l *Lane) error {
	n, _ := l.State.(int)
	l.State = n + 1
	op := Op{Name: "write", Key: fmt.Sprintf("%s%s/%d", tailPrefix, l.ID, n), Write: true, Unsynced: l.Rand.IntN(8) > 0}
	how := pebble.Sync
	if op.Unsynced {
		how = pebble.NoSync
	}
	return l.Do(ctx, op, func(ctx context.Context) (string, error) {
		return "", l.DB.Set(ctx, []byte(op.Key), []byte(l.ID), how)
	})
}

// Check compares what was acknowledged with what is there.
func (Tail) Check(ctx context.Context, e *Evidence) Verdict {
	there, err := e.scan(ctx, tailPrefix)
	if err != nil {
		return Verdict{Violations: []string{err.Error()}}
	}
	return judgeTail(e.Calls, e.Cuts, there)
}

// judgeTail looks for writes that are there and should not be, and the other way
// round. cuts ascend.
func judgeTail(calls []Call, cuts []int64, there map[string]string) Verdict {
	var v Verdict
	lost := 0
	for _, c := range calls {
		_, found := there[c.Key]
		switch {
		case c.Refused && found:
			v.violate(fmt.Sprintf("%s was refused at %s and is there", c.Key, since(c.End)))
		case c.OK() && !found:
			lost++
			if why := unlosable(c, calls, cuts, there); why != "" {
				v.violate(fmt.Sprintf("%s was acknowledged at %s and is not there, though %s", c.Key, since(c.End), why))
			}
		}
	}
	v.Detail = fmt.Sprintf("%d writes, of which power cuts took %d that were not synced, from the end", len(calls), lost)
	return v
}

// unlosable says why a write could not be lost; "" if it could.
func unlosable(c Call, calls []Call, cuts []int64, there map[string]string) string {
	i, _ := slices.BinarySearch(cuts, c.End)
	switch {
	case !c.Unsynced:
		return "it was synced"
	case i == len(cuts):
		return "no power was cut since"
	}
	for _, later := range calls {
		if later.Start < c.End || later.Start >= cuts[i] || later.Refused {
			continue
		}
		if _, found := there[later.Key]; found {
			return fmt.Sprintf("%s, which came later and before the power was cut, is", later.Key)
		}
	}
	return ""
}
