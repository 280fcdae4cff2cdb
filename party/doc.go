// Package party opens one Pebble database in any number of processes at once: the
// first leads and has Pebble open, the others reach it over a socket in the
// directory, and when it goes away another takes its place.
//
// # Guarantees
//
//   - A Sync write that returned nil survives kill -9 and power loss, one with
//     NoSync survives kill -9, from whichever process.
//   - Every read sees every write that returned, in any process, before the read
//     began, and everything that another read had seen by then. So a process
//     reads its own writes, and no sequence of reads, in whatever processes, goes
//     back in time. With Options.LocalReads that is no different; only then reads
//     do not wait for a leader, if the handle has its replica.
//   - A write that returned nil has taken effect exactly once, however many
//     leaders died under it. What became of one whose context ended, or that
//     failed with ErrClosed, ErrUnknownOutcome or, with Options.NoRetry,
//     ErrLeaderLost, is unknown: the leader may have had it already. After any
//     other error it has not taken effect.
//   - A subscription gets every committed batch once and in order, or a
//     CompactedError or TruncatedError.
//   - Damage to a file is ErrCorrupt, never passed over.
//
// # Concurrency
//
// All methods of DB and Snapshot may be called from any goroutine. An Iterator, a
// Subscription, a Watcher and a LogReader are for one goroutine at a time; Close and Ack
// of a Subscription and Close of a Watcher may be called from any.
//
// All calls take a context and block until they are answered or it ends. While
// there is no leader they wait for the next one; a leader that is stopped keeps
// them waiting.
//
// Keys and values that are passed in are read before a call returns and may be
// reused after it. Slices that are returned belong to the caller, but for the Key
// and Value of an Iterator, which are valid until it moves.
//
// # Files on disk
//
// The directory is a plain Pebble directory, which Pebble can open once the last
// handle is closed. In its folder party, of mode 0700, are the lock whose holder
// leads (leader.lock), where the leader is found (endpoint, nats.sock), the log of
// all writes (log), up to where it is committed (commit), locks of named
// subscriptions (cursors) and replicas of processes that keep one (replicas). All
// but the lock and the log means nothing while no process has the database open.
package party
