package chaos_test

import (
	"math/rand/v2"
	"testing"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// Extents are what a set of bytes is, in fewer words.
func TestExtents_AreSets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const size = 40
	for range 2000 {
		var s, cut chaos.Extents
		var want, without [size]bool
		for range 1 + rng.IntN(8) {
			from := rng.IntN(size)
			to := from + rng.IntN(size-from)
			if rng.IntN(3) > 0 {
				s = s.Add(int64(from), int64(to))
				for i := from; i < to; i++ {
					want[i] = true
				}
			} else {
				cut = cut.Add(int64(from), int64(to))
				for i := from; i < to; i++ {
					without[i] = true
				}
			}
		}
		s = s.Without(cut)
		for i := range size {
			if has := s.Has(int64(i)); has != (want[i] && !without[i]) {
				t.Fatalf("%v without %v at %d: %v", s, cut, i, has)
			}
		}
		for i, e := range s {
			if e.From >= e.To || i > 0 && s[i-1].To >= e.From {
				t.Fatalf("%v is not in order", s)
			}
		}
	}
}
