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
// those that are here: Registers, Bank, Lists and Tail.
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
//   - No subscription is silent for five seconds in which its process ran, and knew of
//     something to be delivered.
//   - The times of entries never go back, though the clock does.
//   - A power cut takes writes with pebble.NoSync only, from the end of the log.
//   - No call fails, none returns later than its context ends, and none of a
//     process that was killed was overdue then. While the disk is full or breaks
//     off writes, writes may be refused, and then have no effect.
//   - A process whose sync of the log failed leads no longer.
//   - A bit that is turned over in what is durable of the log keeps everybody out,
//     with an error that names file, offset and sequence number.
//   - Processes end when they are asked to, with exit code 0, and have no goroutine,
//     file descriptor, mapping or replica then that they had not before they
//     opened the database (descriptors and mappings: on Linux).
//   - The directory has in it at the end what the format lists, and nothing else:
//     no socket, no endpoint. The next leader removes replicas of killed processes.
//   - What every process has at the end, its own replica, and what the database
//     has, is byte for byte what a replay of the log makes, if the log is whole.
//   - party.Verify finds the database whole and what its log says.
//
// # The disk
//
// The processes have the database on a file system that can be told to be full, to
// fail syncs and to break off writes. It also keeps a copy of all that was synced,
// of files and of the names in folders, beside the database. A power cut kills all
// processes and then puts back what was synced, with a part of what was not, chosen
// by the seed: sector by sector for bytes, and in whole or by new files for names. A
// sync that is made to fail loses what it should have written, as the kernel does
// that marks such pages clean, until somebody writes it again. The commit word,
// which nobody syncs, may come back older, the endpoint torn or not at all.
//
// # When a plan fails
//
// The seed of the report repeats its schedule; how processes interleave it does not
// fix, so a failure may need some runs to come back. Shrink does those, with fewer
// and fewer faults, and returns the smallest schedule that still failed, to be put in
// Plan.Script.
//
// # Time
//
// All times are of one clock: on Linux CLOCK_MONOTONIC, which is the same in all
// processes, elsewhere the wall clock, which nobody may set while Run runs.
package chaos
