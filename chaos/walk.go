package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// A walk goes over the lists of one place slowly enough for leaders to change under
// it, ascending or descending. Lists only grow, at their ends, so whatever point
// in time an iterator goes on at, a walk finds each of them without a gap: that
// much is looked at as it goes, and it reports how long they were.

const (
	opWalk   = "walk" // Key: prefix of the lists
	forward  = "forward"
	backward = "backward"

	// walkStep is how many keys a walk takes between two pauses of walkPause on
	// average, so that the pages that are on their way do not reach to the end.
	walkStep  = 64
	walkPause = 2 * time.Millisecond
)

func (Lists) walk(ctx context.Context, l *Lane) error {
	prefix := fmt.Sprintf("%slists-%d-", listPrefix, l.Process)
	o := &party.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix), KeysOnly: l.Rand.IntN(2) == 0}
	way := forward
	if l.Rand.IntN(2) == 0 {
		way = backward
	}
	return l.Do(ctx, Op{Name: opWalk, Key: prefix, Input: way}, func(ctx context.Context) (string, error) {
		it, err := l.DB.NewIter(ctx, o)
		if err != nil {
			return "", err
		}
		lengths := walked{}
		keys := it.All()
		if way == backward {
			keys = it.Backward()
		}
		pause := time.NewTimer(time.Hour)
		defer pause.Stop()
		n := 0
		for key, value := range keys {
			if fault := lengths.step(way, string(key), string(value), o.KeysOnly); fault != "" {
				return fault, it.Close()
			}
			if n++; n%walkStep == 0 {
				pause.Reset(time.Duration(l.Rand.Int64N(int64(2 * walkPause))))
				select {
				case <-pause.C:
				case <-ctx.Done(): // the iterator says so
				}
			}
		}
		if err := it.Close(); err != nil {
			return "", err
		}
		return lengths.end(way), nil
	})
}

// walked is the number of entries that a walk has found of each list; of a
// descending one: the range of those.
type walked map[string]*struct{ low, high int }

// step takes the next key in and tells what is wrong with it.
func (w walked) step(way, key, value string, keysOnly bool) (fault string) {
	list, n, err := splitListKey(key)
	if err != nil {
		return err.Error()
	}
	if !keysOnly && !strings.HasPrefix(value, key) {
		return fmt.Sprintf("%s has the value of another: %.60q", key, value)
	}
	r := w[list]
	if r == nil {
		r = &struct{ low, high int }{}
		if way == backward {
			r.low, r.high = n+1, n+1
		}
		w[list] = r
	}
	want := r.high
	if way == backward {
		want = r.low - 1
	}
	if n != want {
		return fmt.Sprintf("%s comes where %d should", key, want)
	}
	if way == backward {
		r.low = n
	} else {
		r.high = n + 1
	}
	return ""
}

// end returns the lengths of the lists, or what is wrong with one.
func (w walked) end(way string) string {
	var fields []string
	for _, list := range slices.Sorted(maps.Keys(w)) {
		if r := w[list]; r.low != 0 {
			return fmt.Sprintf("%s ends at %d, %s", list, r.low, way)
		}
		fields = append(fields, fmt.Sprintf("%s=%d", list, w[list].high))
	}
	return strings.Join(fields, " ")
}

// judgeWalks compares what walks found with what was appended before they began
// and before they ended, and returns how many it looked at.
func judgeWalks(calls []Call, v *Verdict) int {
	type times struct{ starts, ends []int64 } // of the appends to a list, by number; ends of those that were acknowledged
	lists := map[string]*times{}
	for _, c := range calls {
		if c.Name != "append" {
			continue
		}
		list, _, err := splitListKey(c.Key)
		if err != nil {
			v.violate(err.Error())
			continue
		}
		if lists[list] == nil {
			lists[list] = &times{}
		}
		t := lists[list]
		t.starts = append(t.starts, c.Start)
		if c.OK() {
			t.ends = append(t.ends, c.End)
		}
	}
	before := func(times []int64, at int64) int {
		return sort.Search(len(times), func(i int) bool { return times[i] >= at })
	}
	count := 0
	for _, c := range calls {
		if c.Name != opWalk || !c.OK() {
			continue
		}
		count++
		found, err := parseWalk(c.Output)
		if err != nil {
			v.violate(fmt.Sprintf("a walk %s by process %d at %s: %v", c.Input, c.Process, since(c.Start), err))
			continue
		}
		for list, t := range lists {
			if !strings.HasPrefix(listPrefix+list, c.Key) {
				continue
			}
			if n, least, most := found[list], before(t.ends, c.Start), before(t.starts, c.End); n < least || n > most {
				v.violate(fmt.Sprintf("a walk %s by process %d at %s found %d entries of %s, which had %d before and %d after",
					c.Input, c.Process, since(c.Start), n, list, least, most))
			}
		}
	}
	return count
}

// parseWalk reads what a walk reported: the lengths of lists, or a fault, which
// it returns as the error.
func parseWalk(output string) (map[string]int, error) {
	found := map[string]int{}
	for field := range strings.FieldsSeq(output) {
		list, number, ok := strings.Cut(field, "=")
		n, err := strconv.Atoi(number)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s", output)
		}
		found[list] = n
	}
	return found, nil
}
