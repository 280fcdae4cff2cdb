package chaos

import (
	"io"
	"time"
)

// For the tests of what judges and of what reads records.
var (
	JudgeBank   = judgeBank
	ReadHistory = readHistory
	TearTail    = tearTail
	JudgeFiles  = judgeFiles
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
	return judgeCalls(&history{calls: calls, trouble: trouble}, spans, p)
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
