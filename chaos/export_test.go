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
	RecordName  = recordName
)

type Seen = seen

func NewSeen(seq uint64, keys string) Seen { return seen{seq: seq, keys: keys} }

func JudgeLists(calls []Call, notes []Note, log []Seen) Verdict { return judgeLists(calls, notes, log) }

func JudgeRegisters(calls []Call) Verdict {
	return judgeRegisters(calls, &Evidence{Attach: func(string) (io.WriteCloser, error) {
		return &attachment{to: map[string][]byte{}}, nil
	}}, time.Minute)
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

// Measured is a report of calls and faults.
func Measured(duration int64, calls []Call, faults []Done) *Report {
	r := &Report{Duration: duration, Processes: 2, calls: calls, Faults: faults}
	r.measure()
	return r
}
