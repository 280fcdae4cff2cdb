// Package snapshot serves the state in pages.
//
// # Guarantees
//
// A page holds consecutive keys within its bounds, in its direction, and says
// whether it is the last. Reserved keys never appear.
//
// # Concurrency
//
// A Page is used by one goroutine at a time; different pages are independent.
package snapshot
