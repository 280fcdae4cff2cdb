package chaos

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/pebbleparty/pebbleparty/party"
)

// A process records to a file of its own, one line of JSON for each event, with
// one write each: what was written is there whatever becomes of the process, for
// the page cache is the kernel's.

const (
	eventBegin   = "b"
	eventEnd     = "e"
	eventNote    = "n"
	eventTrouble = "t" // an error that Work returned and nothing explains
	eventLooked  = "l" // the process has closed, and looked for what it has left
	eventLeak    = "k" // something that it has left
	eventFenced  = "f" // it has closed and may have left something: see worker.fenced
)

type event struct {
	Kind     string `json:"t"`
	At       int64  `json:"at"`
	N        uint64 `json:"n,omitempty"` // of the call, in this file
	Workload string `json:"w,omitempty"`
	Lane     string `json:"l,omitempty"`
	Index    int    `json:"x,omitempty"`
	Op       string `json:"o,omitempty"`
	Key      string `json:"k,omitempty"`
	Text     string `json:"s,omitempty"` // input, output or note
	Write    bool   `json:"wr,omitempty"`
	Unsynced bool   `json:"ns,omitempty"`
	Err      string `json:"err,omitempty"`
	Refused  bool   `json:"rf,omitempty"` // see Call
	Excused  bool   `json:"ex,omitempty"` // see excused
}

type recorder struct {
	mu     sync.Mutex
	file   *os.File // under mu: lines must not mix
	calls  uint64   // under mu
	failed error    // under mu; the first write that failed
}

func (r *recorder) write(e event) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == eventBegin {
		r.calls++
		e.N = r.calls
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = r.file.Write(append(b, '\n'))
	}
	r.failed = cmp.Or(r.failed, err)
	return e.N
}

// The time of a begin is taken before it is written and that of an end at once,
// so that the interval is never shorter than the call.
func (r *recorder) begin(l *Lane, op Op) uint64 {
	return r.write(event{Kind: eventBegin, At: now(), Workload: l.workload, Lane: l.ID, Index: l.Index,
		Op: op.Name, Key: op.Key, Text: op.Input, Write: op.Write, Unsynced: op.Unsynced})
}

func (r *recorder) end(n uint64, output string, err error) {
	e := event{Kind: eventEnd, At: now(), N: n, Text: output}
	if err != nil {
		e.Err, e.Refused, e.Excused = errorText(err), refused(err), excused(err)
	}
	r.write(e)
}

func (r *recorder) note(l *Lane, text string) {
	r.write(event{Kind: eventNote, At: now(), Workload: l.workload, Lane: l.ID, Index: l.Index, Text: text})
}

func (r *recorder) trouble(l *Lane, err error) {
	r.write(event{Kind: eventTrouble, At: now(), Workload: l.workload, Lane: l.ID, Index: l.Index, Err: errorText(err)})
}

// close returns the first error of the whole time: a record with holes would
// accuse the innocent.
func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.failed, r.file.Close())
}

func errorText(err error) string {
	if errors.Is(err, party.ErrClosed) {
		return "closed"
	}
	return err.Error()
}

// excused tells whether an error is what a disk that fails leads to. Whether one
// did at the time is judged later.
func excused(err error) bool {
	text := err.Error() // not all errors keep what they are on their way from the leader
	return errors.Is(err, party.ErrDiskFull) || strings.Contains(text, errInjected.Error()) || strings.Contains(text, syscall.EMFILE.Error())
}

// refused tells whether an error says that the write was not applied.
func refused(err error) bool { return excused(err) && !errors.Is(err, party.ErrUnknownOutcome) }

// recordName is the file of the process that is the nth in its place.
func recordName(place, n int) string { return fmt.Sprintf("p%02d-%06d.jsonl", place, n) }

// readRecord returns the events of one file. Its last line may be torn.
func readRecord(path string) ([]event, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeRecord(b)
}

func decodeRecord(b []byte) ([]event, error) {
	var events []event
	for n := 1; len(b) > 0; n++ {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		if !whole {
			break // the process died as it wrote
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("record, line %d: %w", n, err)
		}
		events, b = append(events, e), rest
	}
	return events, nil
}

// history is all that the processes recorded.
type history struct {
	calls   []Call
	notes   map[string][]Note // by workload
	trouble []string
	leaks   []string
	looked  int // processes that looked for leaks
	fenced  int // that had a reason not to
}

// readHistory reads the records in dir. Times are made relative to origin.
func readHistory(dir string, origin int64) (*history, error) {
	names, err := filepath.Glob(filepath.Join(dir, "p*.jsonl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // those of one place in the order in which they lived
	h := &history{notes: map[string][]Note{}}
	for _, name := range names {
		var place, n int
		if _, err := fmt.Sscanf(filepath.Base(name), "p%d-%d.jsonl", &place, &n); err != nil {
			return nil, fmt.Errorf("record %s: %w", name, err)
		}
		events, err := readRecord(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := h.add(place, events, origin); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	slices.SortStableFunc(h.calls, func(a, b Call) int { return cmp.Compare(a.Start, b.Start) })
	return h, nil
}

func (h *history) add(place int, events []event, origin int64) error {
	at := map[uint64]int{}
	for _, e := range events {
		switch e.Kind {
		case eventBegin:
			at[e.N] = len(h.calls)
			h.calls = append(h.calls, Call{Op: Op{Name: e.Op, Key: e.Key, Input: e.Text, Write: e.Write, Unsynced: e.Unsynced},
				Lane: e.Lane, Process: place, Workload: e.Workload, Start: e.At - origin})
		case eventEnd:
			i, ok := at[e.N]
			if !ok {
				return fmt.Errorf("call %d ended and never began", e.N)
			}
			c := &h.calls[i]
			c.End, c.Output, c.Err, c.Refused, c.excused = e.At-origin, e.Text, e.Err, e.Refused, e.Excused
		case eventNote:
			h.notes[e.Workload] = append(h.notes[e.Workload], Note{Process: place, Index: e.Index, Text: e.Text})
		case eventTrouble:
			h.trouble = append(h.trouble, fmt.Sprintf("process %d, %s at %s: %s", place, e.Workload, since(e.At-origin), e.Err))
		case eventLooked:
			h.looked++
		case eventFenced:
			h.fenced++
		case eventLeak:
			h.leaks = append(h.leaks, fmt.Sprintf("process %d has closed: %s", place, e.Text))
		}
	}
	return nil
}

// lastNotes returns the last note of every workload and lane index that the
// processes in a place before the nth made.
func lastNotes(dir string, place, n int) (map[string]string, error) {
	last := map[string]string{}
	for i := range n {
		events, err := readRecord(filepath.Join(dir, recordName(place, i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it died before it began
		}
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if e.Kind == eventNote {
				last[noteKey(e.Workload, e.Index)] = strings.Clone(e.Text)
			}
		}
	}
	return last, nil
}

func noteKey(workload string, index int) string { return fmt.Sprintf("%s %d", workload, index) }
