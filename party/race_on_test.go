//go:build race

package party_test

const raceEnabled = true
