//go:build race

package party_test

const raceEnabled = true

// lowest is where a DeleteRange of all keys begins. With -race it is not the empty
// key, as Pebble then checks itself with iterators whose copy of an empty key is nil,
// which its merging iterator takes for the end: a compaction loses the ranges behind.
// Apply's TestPebble_DeletesFromTheEmptyKey has the whole of it.
var lowest = []byte{0}
