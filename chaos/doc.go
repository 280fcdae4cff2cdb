// Package chaos hurts processes that have one party database open, and proves
// from what they saw that no promise was broken.
//
// Run starts processes on one directory, gives them work, kills, stops and
// disturbs them by a plan that one seed fixes, and records every call with the
// times of its begin and return. At the end it checks what was recorded against
// the database and its log, and returns a Report: a page of HTML, JSON and a
// summary.
//
// A program that uses it calls Main before anything else: the processes are the
// same program again. Its own code goes in as a Workload, beside or instead of
// those that are here: Registers, Bank and Lists.
//
// # What is checked
//
//   - Registers are linearizable, over all processes, those that read from their
//     own replica as well, and over failovers (porcupine).
//   - Iterators that go on at another leader give no key twice and skip none.
//   - Money is moved once, and every iterator and snapshot sees the same total.
//   - Every acknowledged append is in the log once, under the sequence number
//     that its writer was told; subscribers see all of them in order, without
//     gap or repeat, over kills.
//   - No call fails, none returns later than its context ends, and none of a
//     process that was killed was overdue then.
//   - Processes end when they are asked to, with exit code 0, and have no goroutine,
//     file descriptor, mapping or replica then that they had not before they
//     opened the database (descriptors and mappings: on Linux).
//   - The directory has in it at the end what the format lists, and nothing else:
//     no socket, no endpoint. The next leader removes replicas of killed processes.
//   - What every process has at the end, its own replica, and what the database
//     has, is byte for byte what a replay of the log makes, if the log is whole.
//   - party.Verify finds the database whole and what its log says.
//
// # Time
//
// All times are of one clock: on Linux CLOCK_MONOTONIC, which is the same in all
// processes, elsewhere the wall clock, which nobody may set while Run runs.
package chaos
