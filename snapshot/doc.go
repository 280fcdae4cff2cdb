// Package snapshot serves the state in pages, and keeps copies of it that follow
// the log without the leader.
//
// # Guarantees
//
// The pages of a Cursor are of one point in time, the one at which it was opened.
// A page holds consecutive keys within the bounds, in the direction of the walk,
// and it is known of each whether it is the last. Reserved keys never appear.
//
// A Replica's View is the state at one sequence number, not before what was
// committed when it was asked for. It stays what it is whatever happens to
// leaders, to the log and to the replica.
//
// A Get after Replica.Current sees all that anybody was told of before Current was
// called. Once Revoke has returned no replica answers any more that was there when
// it began.
//
// A backup is one point in time. Restoring gives all of it or nothing: a stream
// that was cut short or changed, in a single bit, is refused with ErrDamaged.
//
// # Concurrency
//
// A Cursor is used by one goroutine at a time; different ones are independent. A
// Replica and its Views may be used from any goroutine.
//
// # Files on disk
//
// Each replica has a folder, named by 32 random hexadecimal digits, beside those
// of the others. In it are the file lock, whose flock is held while the replica
// lives; the file revoked, a commit word of eventlog's whose term a leader sets to 1
// to end its use; and the checkpoints that were made for it, the last of which it has open
// as a Pebble database. Nothing is synced and nothing in it has a use once the
// lock is free: Sweep removes it then.
//
// # Backup stream
//
// Integers are little endian, uvarints LEB128, strings their length as a uvarint
// and their bytes; checksums are CRC-32C. A stream begins with
//
//	"PPARTBAK", version u32 = 1, checksum of these 12 bytes u32
//
// and goes on with chunks:
//
//	type u8, three zero bytes, length u32, that many bytes, checksum u32
//
// The checksum is over all of the chunk before it, continued from the one before,
// so that a chunk which is missing, twice or out of order shows. The types are, in
// this order,
//
//	1 head      kind u8 (1 full, 2 incremental), database id [16], since u64,
//	            sequence number u64, time of its newest entry i64 (nanoseconds
//	            since 1970; 0 if incremental), names of comparer and merger as strings;
//	            of a full backup, through the rest, the cursors of named
//	            subscriptions: name as a string, sequence number as a uvarint
//	2 pairs     of a full backup: key and value as strings, again and again, in
//	            the order of the comparer, through all such chunks
//	3 entries   of an incremental one: sequence number as a uvarint and log entry
//	            as a string, again and again
//	4 end       chunks before it u64, pairs or entries u64, bytes in them u64,
//	            sequence number u64, SHA-256 of the stream up to this chunk
//
// What comes behind the end is not read.
package snapshot
