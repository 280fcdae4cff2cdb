package chaos

import (
	"math"
	"slices"
)

// extent is the bytes of a file from From up to, and without, To.
type extent struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// wholeFile is every byte that a file has or will have.
var wholeFile = extent{0, math.MaxInt64}

// extents are bytes of a file: ascending, none empty, no two that touch.
type extents []extent

// add returns the extents with e.
func (s extents) add(e extent) extents {
	if e.From >= e.To {
		return s
	}
	first, _ := slices.BinarySearchFunc(s, e.From, func(x extent, from int64) int { return cmpEnd(x.To, from) })
	last := first
	for last < len(s) && s[last].From <= e.To {
		e.From, e.To = min(e.From, s[last].From), max(e.To, s[last].To)
		last++
	}
	return slices.Replace(s, first, last, e)
}

// cmpEnd orders an extent that ends at end before from: one that ends there
// touches it, and is not.
func cmpEnd(end, from int64) int {
	if end < from {
		return -1
	}
	return 1
}

// without returns the extents less those of t.
func (s extents) without(t extents) extents {
	var rest extents
	for _, e := range s {
		for _, cut := range t {
			if cut.To <= e.From || cut.From >= e.To {
				continue
			}
			if cut.From > e.From {
				rest = append(rest, extent{e.From, cut.From})
			}
			e.From = cut.To
			if e.From >= e.To {
				break
			}
		}
		if e.From < e.To {
			rest = append(rest, e)
		}
	}
	return rest
}

// has tells whether the byte at is in one of them.
func (s extents) has(at int64) bool {
	return slices.ContainsFunc(s, func(e extent) bool { return e.From <= at && at < e.To })
}
