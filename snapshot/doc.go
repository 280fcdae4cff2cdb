// Package snapshot serves the state in pages, and keeps copies of it that follow
// the log without the leader.
//
// # Guarantees
//
// A page holds consecutive keys within its bounds, in its direction, and says
// whether it is the last. Reserved keys never appear.
//
// A Replica's View is the state at one sequence number, not before what was
// committed when it was asked for. It stays what it is whatever happens to
// leaders, to the log and to the replica.
//
// # Concurrency
//
// A Request is used by one goroutine at a time; different ones are independent. A
// Replica and its Views may be used from any goroutine.
//
// # Files on disk
//
// Each replica has a folder, named by 32 random hexadecimal digits, beside those
// of the others. In it are the file lock, whose flock is held while the replica
// lives, and the checkpoints that were made for it, the last of which it has open
// as a Pebble database. Nothing is synced and nothing in it has a use once the
// lock is free: Sweep removes it then.
package snapshot
