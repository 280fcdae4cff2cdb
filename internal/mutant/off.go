//go:build !mutation

package mutant

// The mutations.
const (
	// AckBeforeSync: a write that asks for Sync is acknowledged before the log is
	// synced.
	AckBeforeSync = false
	// ForgetDuplicates: a new leader does not know what the leader before it has
	// logged of each handle.
	ForgetDuplicates = false
	// ResumeForward: an ascending iterator that goes on at another leader begins
	// with the key that it gave last instead of the next.
	ResumeForward = false
	// ResumeBackward: the same of a descending one.
	ResumeBackward = false
	// SkipEvent: a reader of the log passes over the first entry of a segment.
	SkipEvent = false
	// DeposedLeader: a leader that resigns lets go of the locks first and goes on
	// to answer reads from its state, without a look at the commit word.
	DeposedLeader = false
	// LoseLastFrame: recovery takes the last entry of the log for a torn tail.
	LoseLastFrame = false
	// LateWord: the commit word advances a millisecond late, after writes that it
	// should count were acknowledged.
	LateWord = false
	// StaleLocalRead: a local read answers before the replica has caught up.
	StaleLocalRead = false
	// SplitBatch: the first operation of a batch becomes visible before the others.
	SplitBatch = false
	// ReplayLosesOps: a replay drops the last operation of batches that have more
	// than two.
	ReplayLosesOps = false
	// LostWakeUp: now and then the leader takes those who wait for events off its list
	// and does not tell them.
	LostWakeUp = false
	// NoteTooFar: a named subscription that has nothing to do notes that it has read
	// two sequence numbers more than it has.
	NoteTooFar = false
	// TimeGoesBack: entries have the time of the clock, though the one before them has
	// a later one.
	TimeGoesBack = false
)
