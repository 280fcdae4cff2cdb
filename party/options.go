package party

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options configure Open. The zero value, and a nil *Options, work. Open makes a
// copy; it does not write to what it is given.
type Options struct {
	// Pebble is how the process opens Pebble while it leads. Comparer and Merger
	// must be the same in every process; the rest may differ. DisableWAL is
	// always set (the event log takes that place), and Lock must be nil. FS must
	// be vfs.Default or wrap it: other processes have to find the files.
	//
	// The defaults are Pebble's, but for four: MemTableStopWritesThreshold is 8 and
	// L0StopWritesThreshold 64, where writes wait, as they do in Pebble, but reads do
	// not; a block cache of 64 MiB where Pebble has 8, as the leader's serves every
	// process; index blocks of 256 KiB, unless
	// any level has an IndexBlockSize; and Bloom filters of 10 bits a key in all levels
	// but the last, unless any level has a FilterPolicy (pebble.NoFilterPolicy: none)
	// or the Comparer is not Pebble's own, which might take keys for equal that
	// differ in their bytes. Blocks and filters are as CockroachDB has them; a Pebble
	// without those options reads the same files.
	Pebble *pebble.Options

	// NoRetry makes calls that are under way when the leader goes away fail with
	// ErrLeaderLost instead of being sent again to the next one. Calls that have
	// not been sent yet wait for the next leader all the same.
	NoRetry bool

	// LocalReads makes a handle that does not lead keep a copy of the database of
	// its own and answer Get, GetMany, Has and NewIter from it, in this process, at
	// about the speed of Pebble, whether there is a leader or not. The guarantee is
	// that of a read at the leader: every read sees every write that returned, in
	// any process, before it began. The default, false, asks the leader.
	//
	// The copy is made in the background once the handle follows; until it is there,
	// and when it has to be given up, reads go to the leader, and no caller sees a
	// difference. It is a Pebble of its own, opened with Options.Pebble, so with a
	// block cache and memtables of its own. On disk it shares the leader's tables; it
	// keeps those that the leader has compacted away since, at most the size of the
	// database when it was made, besides up to about 64 MiB that it has applied
	// itself. It is brought up to date by who reads, so a handle that does not read
	// does not work; it is replaced by a new one after 64 MiB of log. A handle that
	// leads has none: it reads its own database.
	LocalReads bool

	// Retention says how much of the event log is kept.
	Retention Retention

	// Logger receives what happens in the background. The default is silence.
	Logger *slog.Logger

	// Events are called as things happen.
	Events Events

	// Now is the wall clock, for tests. While this handle leads, entries of the log get
	// their time from it, but never one before that of the entry before, and
	// Retention.MaxAge goes by it. Nothing waits by it, so it may jump. It is called
	// from several goroutines. The default is time.Now.
	Now func() time.Time

	// AllowNetworkFS opens a directory although it is on a network file system.
	// That is safe only if all processes run on one machine and its locks and
	// memory mappings work there as on a local disk.
	AllowNetworkFS bool
}

// Retention says how much of the event log is kept beyond what recovery needs.
// The log is removed in whole segments of about 2 MiB, oldest first, when one of
// the bounds is passed; what Pebble has not made durable yet is always kept.
type Retention struct {
	// MaxBytes bounds the size of the log in bytes. The default, for 0, is 256
	// MiB; a negative value means no bound.
	MaxBytes int64
	// MaxAge bounds the age of entries, by the clocks of the leaders that wrote them
	// and that remove them. The default, 0, means no bound.
	MaxAge time.Duration
	// CursorBytes is how many bytes of log that are too much or too old are kept
	// all the same while a named subscription has not acknowledged them; what does
	// not touch its bounds needs no Ack while it waits for more. The default, 0,
	// keeps none; there is no way to keep all, as a name that nobody comes back for
	// would fill the disk.
	CursorBytes int64
}

const defaultRetentionBytes = 256 << 20

// Where Options.Pebble says nothing.
const (
	defaultCacheBytes = 64 << 20
	filterBits        = 10
	indexBlockBytes   = 256 << 10
)

// Events is a set of functions that are called as things happen. They are
// called one at a time, in order, from a goroutine that does nothing else, so
// they may block; what happens meanwhile waits in line. All may be nil.
type Events struct {
	// RoleChanged: this handle leads or follows now, or is looking for a leader.
	RoleChanged func(RoleChange)
}

// Role is what a handle does at the moment.
type Role int

const (
	// Electing: there is no leader that answers; calls wait.
	Electing Role = iota
	// Following: another handle leads, calls go there.
	Following
	// Leading: this handle has the database open and serves the others.
	Leading
)

// String returns the role in lower case.
func (r Role) String() string {
	switch r {
	case Leading:
		return "leading"
	case Following:
		return "following"
	}
	return "electing"
}

// RoleChange says what a handle does from now on.
type RoleChange struct {
	Role      Role
	Term      uint64 // the term it leads or follows in, 0 when electing
	LeaderPID int    // 0 when electing
	Cause     error  // why the last role ended, when it did not end by request
	Time      time.Time
}

// prepare clones o, fills in defaults and validates; all faults come at once.
func prepare(o *Options) (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	c.Pebble = c.Pebble.Clone()
	if c.Pebble.FS == nil {
		c.Pebble.FS = vfs.Default
	}
	if c.Pebble.Comparer == nil {
		c.Pebble.Comparer = pebble.DefaultComparer
	}
	if c.Pebble.Merger == nil {
		c.Pebble.Merger = pebble.DefaultMerger
	}
	if c.Pebble.Cache == nil && c.Pebble.CacheSize == 0 {
		c.Pebble.CacheSize = defaultCacheBytes
	}
	setLevels(c.Pebble)
	if c.Retention.MaxBytes == 0 {
		c.Retention.MaxBytes = defaultRetentionBytes
	}
	if c.Retention.MaxBytes < 0 {
		c.Retention.MaxBytes = 0 // the log's own form of "no bound"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("party: options: "+format, args...))
		}
	}
	fault(c.Pebble.ReadOnly, "Pebble.ReadOnly: every process may have to lead, which writes")
	fault(c.Pebble.Lock != nil, "Pebble.Lock: party locks the directory itself")
	fault(vfs.Root(c.Pebble.FS) != vfs.Default, "Pebble.FS: other processes must find the files: it has to be vfs.Default or wrap it")
	fault(c.Pebble.ErrorIfExists, "Pebble.ErrorIfExists: the next leader has to open what exists")
	fault(c.Retention.CursorBytes < 0, "Retention.CursorBytes is negative (%d)", c.Retention.CursorBytes)
	fault(c.Retention.MaxAge < 0, "Retention.MaxAge is negative (%s)", c.Retention.MaxAge)
	return c, errors.Join(faults...)
}

// setLevels gives the tables what a Get profits from, whose time is that of the memory
// it touches: it passes by those above the one that has its key, and finds a block with
// one search instead of two. Each level inherits from the one before.
func setLevels(o *pebble.Options) {
	filters, blocks := false, false
	for i := range o.Levels {
		filters = filters || o.Levels[i].FilterPolicy != nil
		blocks = blocks || o.Levels[i].IndexBlockSize != 0
	}
	if !filters && o.Comparer == pebble.DefaultComparer {
		o.Levels[0].FilterPolicy = bloom.FilterPolicy(filterBits)
		// Most keys are here, and most of those that are asked for: filters would take much
		// room and spare little.
		o.Levels[len(o.Levels)-1].FilterPolicy = pebble.NoFilterPolicy
	}
	if !blocks {
		o.Levels[0].IndexBlockSize = max(indexBlockBytes, o.Levels[0].BlockSize)
	}
}
