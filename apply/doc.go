// Package apply is the deterministic state machine between the event log and
// Pebble: it judges commands, encodes what takes effect as log entries, and
// applies log entries to Pebble.
//
// # Guarantees
//
//   - The same log gives the same state, key by key and byte by byte, in the
//     leader, in a replay after a crash and in a replica: applying reads
//     nothing but the entry and the state; no clock, no randomness, no map
//     order. How entries are grouped into Pebble batches makes no difference.
//   - The applied sequence number is written in the same Pebble batch as the
//     effects, so that after a crash Pebble holds an exact prefix of the log.
//   - No table of Pebble's is created before the log it came from is durable
//     (see guardFS), so that prefix is never longer than the log.
//   - A command that was logged is recognised when it comes again and gets its
//     first answer; see Group.Judge for the bound.
//   - Reserved keys can be neither read nor written by commands, and survive a
//     DeleteRange across them.
//
// SingleDelete is applied as Delete: what Pebble makes of a SingleDelete of a key
// that was written more than once depends on when it flushes.
//
// # Concurrency
//
// One goroutine at a time calls Recover, Begin, Apply, ApplyTerm and Memory and the
// methods of the Group (the sequencer). Get, NewIter, Applied, WaitApplied, WaitJudged, Cursors,
// Durable, Flush, Full, Want and Wanted may be called from any goroutine until Close; on a machine of
// Resume, Get and NewIter only behind WaitApplied.
//
// # Keys in Pebble
//
// Bookkeeping lives under ReservedPrefix; every such key ends in a zero byte,
// which comparers that keep a suffix length in the last byte (CockroachDB's)
// take as "no suffix":
//
//	<prefix> "id" 00              version u32, database id [16]
//	<prefix> "applied" 00         sequence number u64, floor u64, time i64, slots u32
//	<prefix> "clean" 00           sequence number u64 of the last clean Close
//	<prefix> "restored" 00        of a backup: database id [16], sequence number u64
//	<prefix> "s" <slot u32> 00    session: what was logged for one origin
//	<prefix> "cursors" 00         number of cursor slots u32; may be absent for none
//	<prefix> "c" <slot u32> 00    cursor: sequence number u64, name; absent for a free slot
//
// A session is the origin [16], then as uvarints the newest sequence number, the
// lowest number without an answer, the floor when the session was made, and the
// count of runs; each run is a number, the sequence number it was logged as, and
// how many of both there are in a row, those included.
//
// Integers are little endian, the slot is big endian. "id", "clean" and "restored" are not derived from the log;
// all else is.
//
// # Memory
//
// What Machine.Memory returns:
//
//	magic "PPARTMEM", version u32 = 2, length u32 of what follows the checksum, CRC-32C u32 of that
//	database id [16], sequence number u64, floor u64, time i64
//	a place in the log: number of the segment, offset, sequence number before it, term, reservation limit, u64 each
//	sessions: count uvarint, then for each slot length uvarint, session
//	cursors: count uvarint, then for each slot sequence number uvarint, length of the name uvarint, name
//
// Whatever stands behind it is ignored: in a file, it is of a longer one before.
//
// # Log entries
//
//	version u8 = 1, flags u8, time i64 (unix nanoseconds), origin [16],
//	number uvarint, number-low uvarint, Pebble batch representation
//
// Flag 1: the entry moves a named cursor. Its batch has one operation, a Set with
// a sequence number u64 or a Delete, of the key <prefix> "n" <name> 00, which is not
// written to Pebble as such.
package apply
