//go:build !race

package party_test

const raceEnabled = false

// lowest is where a DeleteRange of all keys begins; see the one with -race.
var lowest []byte
