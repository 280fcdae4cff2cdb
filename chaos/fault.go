package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// FaultKind names a way to hurt the processes.
type FaultKind string

// The faults. Those that end a process start another one in its place.
const (
	KillLeader     FaultKind = "kill-leader"     // SIGKILL to the process that leads
	KillFollower   FaultKind = "kill-follower"   // SIGKILL to one that follows
	KillAll        FaultKind = "kill-all"        // SIGKILL to all at once
	KillStart      FaultKind = "kill-start"      // SIGKILL to one as it starts, a few times
	KillReplay     FaultKind = "kill-replay"     // SIGKILL to all, and twice more in the middle of the next leader's taking over
	TornTail       FaultKind = "torn-tail"       // SIGKILL to all, and garbage behind the end of the log
	BitFlip        FaultKind = "bit-flip"        // SIGKILL to all, and one bit of the log is wrong until it was seen that nobody opens it
	StopLeader     FaultKind = "stop-leader"     // SIGSTOP to the process that leads, and SIGCONT
	StopFollower   FaultKind = "stop-follower"   // SIGSTOP to one that follows, and SIGCONT
	CloseLeader    FaultKind = "close-leader"    // the process that leads closes its handle and ends
	CloseFollower  FaultKind = "close-follower"  // one that follows does
	Resign         FaultKind = "resign"          // DB.Resign in the process that leads
	Reopen         FaultKind = "reopen"          // one process opens and closes further handles in a loop
	RemoveSocket   FaultKind = "remove-socket"   // the leader's socket is deleted
	RemoveEndpoint FaultKind = "remove-endpoint" // the file that says where the leader listens is deleted
	DiskFull       FaultKind = "disk-full"       // there is no room for a while; no process is started meanwhile
	SyncError      FaultKind = "sync-error"      // syncs fail in the process that leads, once or for a while
	ShortWrite     FaultKind = "short-write"     // some writes of the process that leads write a part and fail, for a while
	KillCheckpoint FaultKind = "kill-checkpoint" // SIGKILL in the middle of a checkpoint, to the leader or to whom it is for
	NoFiles        FaultKind = "no-files"        // one process can open next to no more files for a while
	PowerCut       FaultKind = "power-cut"       // SIGKILL to all, and what was not synced is lost, or some of it
	ClockJump      FaultKind = "clock-jump"      // the clock of the machine is set, by minutes to weeks, forward or back
)

// AllFaults returns the faults that can be done on this system, in a fixed order.
func AllFaults() []FaultKind {
	kinds := []FaultKind{KillLeader, KillFollower, KillAll, KillStart, KillReplay, TornTail, BitFlip,
		CloseLeader, CloseFollower, Resign, Reopen, SyncError, ShortWrite, KillCheckpoint, ClockJump}
	if canStarve {
		kinds = append(kinds, NoFiles)
	}
	if canStop {
		// The named pipe of Windows has no file to delete, and its files no inodes
		// to tell them by. Its full disk has another error.
		kinds = append(kinds, StopLeader, StopFollower, RemoveSocket, RemoveEndpoint, DiskFull, PowerCut)
	}
	return kinds
}

// excuses tells whether a call may fail of a fault: of a full or broken disk any, as
// the leader's answer. Of a sync that fails only what the leader cannot do without it
// but lead on, which is to make a checkpoint; and calls of a process that cannot lead
// and tries to. What they fail with says whether a write was applied.
func (d Done) excuses(c Call) bool {
	switch d.Kind {
	case DiskFull, ShortWrite, NoFiles:
		return true
	case SyncError:
		return !c.Write || d.Process == c.Process
	}
	return false
}

// weight is how often a kind is drawn: a failover is what most can go wrong in.
func (k FaultKind) weight() int {
	switch k {
	case KillLeader:
		return 6
	case KillFollower, CloseLeader, Resign, KillAll, StopLeader, PowerCut:
		return 2
	default:
		return 1
	}
}

// ofAll tells whether the kind kills all processes.
func (k FaultKind) ofAll() bool {
	switch k {
	case KillAll, TornTail, BitFlip, PowerCut:
		return true
	}
	return false
}

// Fault is one entry of the plan: what is done, when, and against whom.
type Fault struct {
	Kind FaultKind     `json:"kind"`
	At   time.Duration `json:"at"` // since the work began; later if the fault before it takes longer
	// Pick chooses among the processes that qualify, in [0, 1).
	Pick float64 `json:"pick"`
	// For is how long it lasts: the stop, the time between two kills, or the time
	// until a killed process is started again. Of ClockJump it is by how much: back if
	// it is negative.
	For time.Duration `json:"for"`
}

// String says all that is fixed about the fault.
func (f Fault) String() string {
	return fmt.Sprintf("%s %s pick %.3f for %s", f.At.Round(time.Millisecond), f.Kind, f.Pick, f.For.Round(time.Millisecond))
}

// Schedule returns the faults of the plan: Script, if there is one. Else it depends
// on Seed, Duration, Every and Faults only; the same plan has the same schedule.
func (p Plan) Schedule() []Fault {
	p = p.withDefaults()
	if p.Script != nil {
		return slices.Clone(p.Script)
	}
	rng := rand.New(rand.NewPCG(p.Seed, 0xc4a05))
	var bag []FaultKind
	for _, k := range p.Faults {
		bag = append(bag, slices.Repeat([]FaultKind{k}, k.weight())...)
	}
	var faults []Fault
	for at := p.Every; ; at += p.Every/2 + time.Duration(rng.Int64N(int64(p.Every))) {
		if at >= p.Duration-p.Every || len(bag) == 0 {
			return faults
		}
		f := Fault{Kind: bag[rng.IntN(len(bag))], At: at, Pick: rng.Float64()}
		longest := 150 * time.Millisecond
		switch f.Kind {
		case StopLeader, StopFollower, DiskFull, ShortWrite, NoFiles:
			longest = time.Second
		case KillStart, KillReplay:
			longest = 80 * time.Millisecond
		}
		f.For = time.Duration(rng.Int64N(int64(longest)))
		if f.Kind == ClockJump {
			f.For = jump(rng)
		}
		faults = append(faults, f)
	}
}

// jump draws by how much a clock is set: as likely by minutes as by weeks.
func jump(rng *rand.Rand) time.Duration {
	const least, most = time.Minute, 30 * 24 * time.Hour
	by := time.Duration(float64(least) * math.Pow(float64(most/least), rng.Float64()))
	if rng.IntN(2) == 0 {
		by = -by
	}
	return by.Round(time.Second)
}
