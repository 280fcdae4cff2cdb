// Package embednats runs a NATS server inside the leading process and lets other processes reach it over a unix socket
// (a named pipe on Windows), because nats-server itself listens on TCP only.
//
// # Guarantees
//
//   - No TCP port is opened, no file is written but the socket, and nothing outside the process is told of it.
//     The socket has mode 0600 and stands in a folder of mode 0700; a pipe admits the current user only.
//   - A follower that stops reading (SIGSTOP, a debugger) slows nobody else: what it does not take waits in memory
//     of its own, and a follower that takes nothing for a second with 64 MiB waiting is cut off. It may dial again.
//   - No timer ends a connection: a process may be stopped for hours and go on. A connection ends when its socket does,
//     and a follower hears of that through the channel that [Dial] returns, before nats.go is done with its own clean-up.
//   - A connection that ends in the middle of a frame takes only itself away.
//   - [Server.Close] and [Dial] take bounded time, whatever the other processes do, and leave no goroutine behind.
//
// # Not guaranteed
//
// A message is delivered at most once, as NATS says: what a cut connection had in flight, in either direction, is lost
// or was processed, and only a reply tells which. nats.go drops messages for a subscription whose handler falls behind
// by more than its limits: a caller that must not lose any calls SetPendingLimits(-1, -1).
// nats-server calls runtime.SetBlockProfileRate(0) when it starts, which ends block profiling in the process that leads.
//
// # Concurrency
//
// Every exported function and method may be called from any goroutine. A process may have any number of servers;
// they share nothing, and there is no package-level state.
//
// # Files on disk
//
// dir/nats.sock. [Server.Close] removes it; after a kill it stays, until the next leader listens there. Where the path of that
// is too long for a socket's address it is bound and dialled by a short one: by Linux's /proc, elsewhere by a symbolic link in
// <tmp>/pebbleparty-<random>, which is there for that moment.
package embednats
