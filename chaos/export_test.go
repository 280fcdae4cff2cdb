package chaos

import (
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// For the tests of what judges and of what reads records.
var (
	JudgeBank   = judgeBank
	ReadHistory = readHistory
	TearTail    = tearTail
	JudgeFiles  = judgeFiles
	JudgeTimes  = judgeTimes
	JudgeSwept  = judgeSwept
	RecordName  = recordName
)

func ReadsLocally(p Plan, place, n int) bool { return p.readsLocally(place, n) }

type Seen = seen

func NewSeen(seq uint64, keys string) Seen { return seen{seq: seq, keys: keys} }

func JudgeWalks(calls []Call) (v Verdict) {
	judgeWalks(calls, &v)
	return v
}

// Walk is what a walk reports that finds keys.
func Walk(way string, keys ...string) string {
	w := walked{}
	for _, key := range keys {
		if fault := w.step(way, key, key+" and more", false); fault != "" {
			return fault
		}
	}
	return w.end(way)
}

func JudgeLists(calls []Call, notes []Note, log []Seen) Verdict { return judgeLists(calls, notes, log) }

func JudgeRegisters(calls []Call) Verdict {
	v, _ := JudgeRegistersWith(calls)
	return v
}

// JudgeRegistersWith returns what the judgement attached too.
func JudgeRegistersWith(calls []Call) (Verdict, map[string][]byte) {
	to := map[string][]byte{}
	return judgeRegisters(calls, &Evidence{Attach: func(name string) (io.WriteCloser, error) {
		return &attachment{name: name, to: to}, nil
	}}, time.Minute), to
}

func JudgeCalls(calls []Call, trouble []string, spans []Span, p Plan) Verdict {
	return judgeCalls(&history{calls: calls, trouble: trouble}, spans, nil, p)
}

// DecodeRecord is what a process recorded, as calls.
func DecodeRecord(b []byte) ([]Call, error) {
	events, err := decodeRecord(b)
	if err != nil {
		return nil, err
	}
	h := &history{notes: map[string][]Note{}}
	return h.calls, h.add(0, events, 0)
}

// JudgeLeaks judges what one process recorded.
func JudgeLeaks(record []byte, ended int) (Verdict, error) {
	events, err := decodeRecord(record)
	if err != nil {
		return Verdict{}, err
	}
	h := &history{notes: map[string][]Note{}}
	err = h.add(0, events, 0)
	return judgeLeaks(h, ended), err
}

// Measured completes a report that has faults and spans by its calls.
func Measured(r *Report, calls []Call, attachments map[string][]byte) *Report {
	r.calls, r.attachments = calls, attachments
	r.measure()
	return r
}

// Described tells whether the report has words for a kind of fault.
func Described(kind FaultKind) bool {
	return descriptions[kind].class != "" && descriptions[kind].text != ""
}

// Extents is extents with names to call it by.
type Extents extents

func (s Extents) Add(from, to int64) Extents { return Extents(extents(s).add(extent{from, to})) }
func (s Extents) Without(t Extents) Extents  { return Extents(extents(s).without(extents(t))) }
func (s Extents) Has(at int64) bool          { return extents(s).has(at) }

var JudgeTail = judgeTail

// JudgeRegistersWithCuts is JudgeRegisters when the power was cut.
func JudgeRegistersWithCuts(calls []Call, cuts ...int64) Verdict {
	return judgeRegisters(calls, &Evidence{Cuts: cuts, Attach: func(string) (io.WriteCloser, error) {
		return &attachment{to: map[string][]byte{}}, nil
	}}, time.Minute)
}

// JudgeRegistersWithin is JudgeRegisters with so much time.
func JudgeRegistersWithin(calls []Call, patience time.Duration) Verdict {
	return judgeRegisters(calls, &Evidence{Attach: func(string) (io.WriteCloser, error) {
		return &attachment{to: map[string][]byte{}}, nil
	}}, patience)
}

// JudgeFailedCall judges one call that failed for a fault of the disk.
func JudgeFailedCall(c Call, faults ...Done) Verdict {
	c.Err, c.excused = "disk full", true
	return judgeCalls(&history{calls: []Call{c}}, nil, faults, Plan{}.withDefaults())
}

// Disk is the file system of a process, with its platter.
type Disk struct{ *disk }

// NewDisk returns the disk of a new process on db, whose platter is in dir.
func NewDisk(db, dir string) Disk { return Disk{newDisk(vfs.Default, db, newPlatter(dir, db), 1)} }

// Hold has the platter hold all that is there.
func (d Disk) Hold() error { return d.platter.hold() }

// Cut cuts the power.
func (d Disk) Cut(seed uint64) error {
	_, err := d.platter.cut(rand.New(rand.NewPCG(seed, 0)))
	return err
}

// Fill, FailSyncs, Break and Heal say what ails it.
func (d Disk) Fill()      { d.ail(&ailment{Full: true}) }
func (d Disk) FailSyncs() { d.ail(&ailment{Syncs: syncsOfAll}) }
func (d Disk) Break()     { d.ail(&ailment{Short: true}) }
func (d Disk) Heal()      { d.ail(nil) }

// ErrInjected is what files fail with.
var ErrInjected = errInjected

// ShrinkBy is shrink with runs that cannot go wrong.
func ShrinkBy(faults []Fault, fails func([]Fault) bool) (smallest []Fault, runs int) {
	smallest = faults
	_ = shrink(faults, func(part []Fault) (bool, error) {
		runs++
		if fails(part) {
			smallest = part
			return true, nil
		}
		return false, nil
	})
	return smallest, runs
}

// LogFrames are the offsets and sequence numbers of the frames of a segment.
func LogFrames(b []byte) (at []int, seqs []uint64) {
	for _, f := range logFrames(b) {
		at, seqs = append(at, f.at), append(seqs, f.seq)
	}
	return at, seqs
}

// FollowingOn are the numbers that follow on the record before each frame.
func FollowingOn(b []byte) (next []uint64) {
	for _, f := range logFrames(b) {
		next = append(next, f.next)
	}
	return next
}

// Durable are the names that the folder of the database has on the disk.
func (d Disk) Durable() []string {
	durable, err := d.platter.durable(0)
	if err != nil {
		panic(err)
	}
	return slices.Sorted(maps.Keys(durable))
}

// PaceSilent is how many looks in a row may find that nothing was delivered.
const PaceSilent = paceSilent

// Pace is pace with names to call it by.
type Pace struct{ *pace }

// NewPaces returns the paces of n lanes of one workload.
func NewPaces(n int) (paces []Pace) {
	due := new(atomic.Uint64)
	for range n {
		paces = append(paces, Pace{newPace(due)})
	}
	return paces
}

func (p Pace) Due(seq uint64)       { p.knows(seq) }
func (p Pace) Delivered(seq uint64) { p.reached(seq) }
func (p Pace) Leave()               { p.leave() }
func (p Pace) Look() error          { return p.look() }
func (p Pace) Arrive()              { p.arrive() }
