// Package eventlog is a segmented append-only log with one writer and readers in any process.
//
// # Guarantees
//
//   - What Append with sync or Sync returned for survives a power cut. What Append without sync or StartTerm returned for
//     survives the death of the process.
//   - A sequence number stands for one content, ever: the number of an entry that a power cut took is not given out again. Of the
//     record of a term that holds from the first sync behind it on.
//   - A crash leaves at most a torn tail, which the next Open cuts. Anything else is a CorruptError with file, offset and
//     sequence number. Not told from a torn tail can be damage to the very last group that was synced, when nothing came
//     behind it, no clean Close did, and Options.DurableHint is not given.
//   - A full disk fails appends and leaves the log in order. A sync that failed ends it (ErrFailed), for what became of
//     the entries is unknown; Open finds out.
//   - A Reader returns every record once, in order, without a gap, or an error.
//
// # Concurrency
//
// A Log is safe for concurrent use; that there is only one in all processes is up to the caller, who holds the leader
// lock. Sync and Retain run beside appends. A Reader belongs to one goroutine; any number of them read beside the writer.
// A Commit is safe for concurrent use. There are no goroutines in this package.
//
// # Files on disk
//
// All numbers are little endian. Checksums are CRC-32C. Sequence numbers begin at 1 and stay below 2^62.
//
// A segment is a file <first sequence number, 20 decimal digits>.log. It begins with a header of 128 bytes:
//
//	offset  bytes
//	     0      8  "PPARTLOG"
//	     8      4  format version, 1
//	    12      4  zero
//	    16     16  database id
//	    32      8  first: sequence number of the first record of this segment
//	    40      8  prev: that of the last record before it, 0 when there was none ever
//	    48      8  before: first of the segment before it, 0 when there was none
//	    56      8  term in force at the start
//	    64      8  reservation limit in force at the start
//	    72      8  time of creation, nanoseconds since 1970
//	    80     44  zero
//	   124      4  checksum of bytes 0 to 123
//
// Frames follow, each beginning at a multiple of 8:
//
//	 0      4  checksum, see below
//	 4      4  length of the payload, at most 2^30-64
//	 8      8  sequence number
//	16      8  synced: up to where the log was known to be durable when the frame was written
//	24      1  kind: 1 entry, 2 term, 3 reserve
//	25      7  zero
//	32         payload, then zeros up to a multiple of 8
//
// The checksum is over bytes 4 to the end of the payload, continued from the checksum in the segment's header (as
// hash/crc32.Update does with that as its first argument). So frames of another segment, and bytes in a payload that
// look like a frame, are never valid.
//
// Kinds and payloads:
//
//	entry    opaque bytes
//	term     term, prev (sequence number of the record before), time in nanoseconds since 1970; 8 bytes each
//	reserve  limit, 8 bytes; its sequence number repeats that of the record before
//
// Behind the last frame there are only zeros. They are written ahead, so that a sync usually finds blocks that exist
// already and has no metadata to write; a file may also end anywhere behind its last frame.
//
// The chain: the sequence number of an entry is that of the record before plus 1. That of a term record may be larger,
// and its prev names the record before; terms grow. The first record of a segment has the number in its name, or is a
// term record with a larger one. A header names the segment before it and the last record there, so a missing file shows.
//
// # Reservation
//
// Unsynced entries get numbers below the reservation limit only, and the limit is made durable before it is used. After a
// crash the next leader's term record takes the limit as its number, if that is not just the next one. A clean Close
// writes a limit that is just the next one, and synced appends do not need the limit at all, so in those cases numbers
// have no gap.
//
// # Recovery
//
// Only the last segment may hold frames that were not synced, for a segment is synced before the next one is begun. Open
// walks it up to the first frame that is not valid. That is corruption when a valid frame further on has a synced at or
// above the number expected there (it had been durable), or when DurableHint is above the last valid number; otherwise a
// torn tail, which is overwritten with zeros. Then everything above DurableHint is written again in place and synced:
// after a failed sync of a dead leader the page cache may hold pages that are marked clean and are not on the disk. A last
// file without a usable header and without data was being created when the crash came; it is removed.
//
// With a Position the walk begins there: all before it is durable, by DurableHint. If no record is at it, or what is behind it
// looks damaged, the walk is made from the beginning, so a position that is none of this log does no harm.
//
// Of the segments before the last, Open reads the names only, so that what it costs does not grow with the log. A Reader
// checks each header as it comes to it, and the first Retain all of them.
//
// # Commit word
//
// A file of 4096 bytes, memory-mapped by all processes:
//
//	  0      8  "PPARTCOM"
//	  8      4  format version, 1
//	 12      4  zero
//	 16     16  database id
//	 32      4  checksum of bytes 0 to 31
//	128      8  term
//	256      8  committed sequence number
//	384      8  durable sequence number
//
// The last three are read and written atomically, in the byte order of the machine. Nothing syncs the file after its
// creation: it is the truth while the kernel lives and a hint after a power cut.
package eventlog
