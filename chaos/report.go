package chaos

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is what came of a plan. It belongs to the caller. Times are nanoseconds
// since the work began.
type Report struct {
	Seed      uint64    `json:"seed"`
	Started   time.Time `json:"started"`
	Duration  int64     `json:"duration"`
	Processes int       `json:"processes"`
	System    string    `json:"system"`
	Dir       string    `json:"dir,omitempty"` // where database and records are; "" if they were removed

	Calls      int   `json:"calls"`
	Writes     int   `json:"writes"`     // that succeeded
	Unanswered int   `json:"unanswered"` // calls of processes that were killed during them
	Kills      int   `json:"kills"`      // processes that were killed
	Leaders    int   `json:"leaders"`    // terms that somebody led in
	LongestGap int64 `json:"longestGap"` // time without a write that succeeded

	Verdicts     []Verdict      `json:"verdicts"`
	Availability []Availability `json:"availability"`
	Failovers    []int64        `json:"failovers"` // Done.Recovery of the faults that another leader followed, ascending
	Faults       []Done         `json:"faults"`
	Spans        []Span         `json:"spans"`

	calls       []Call
	attachments map[string][]byte
}

// Availability says what one kind of fault cost. Durations are nanoseconds.
type Availability struct {
	Kind     FaultKind `json:"kind"`
	Class    string    `json:"class,omitempty"` // kill, stop, leave or break
	What     string    `json:"what,omitempty"`  // is done, in a few words
	Count    int       `json:"count"`
	Longest  int64     `json:"longest"`  // time without a write that succeeded
	Recovery []int64   `json:"recovery"` // see Done, ascending
}

// Outcome is what a run has shown.
type Outcome string

// The outcomes.
const (
	Held      Outcome = "held"      // all promises, as far as this run tried them
	Undecided Outcome = "undecided" // nothing was violated, and a part could not be judged: of that nothing is proven
	Violated  Outcome = "violated"
)

// Outcome returns the worst that is in Verdicts.
func (r *Report) Outcome() Outcome {
	switch {
	case !r.OK():
		return Violated
	case len(r.undecided()) > 0:
		return Undecided
	}
	return Held
}

// undecided returns the names of the verdicts on what could not be judged in full.
func (r *Report) undecided() (names []string) {
	for _, v := range r.Verdicts {
		if v.Undecided != "" {
			names = append(names, v.Name)
		}
	}
	return names
}

// OK tells whether nothing was violated. That is no proof of what could not be
// judged, see Outcome.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return len(v.Violations) > 0 })
}

func (r *Report) add(v Verdict) { r.Verdicts = append(r.Verdicts, v) }

// measure counts, and finds what the faults cost.
func (r *Report) measure() {
	var starts, ends []int64 // of writes that succeeded; ends sorted, starts in step with calls
	var writes []Call
	for _, c := range r.calls {
		r.Calls++
		if !c.Answered() {
			r.Unanswered++
		}
		if c.Write && c.OK() {
			writes = append(writes, c)
			starts, ends = append(starts, c.Start), append(ends, c.End)
		}
	}
	r.Writes = len(writes)
	slices.Sort(ends)
	terms := r.terms()
	r.Leaders = len(terms)
	r.charge(ends)
	kinds := map[FaultKind]*Availability{}
	for i := range r.Faults {
		f := &r.Faults[i]
		until := r.Duration
		if i+1 < len(r.Faults) {
			until = r.Faults[i+1].At
		}
		first, _ := slices.BinarySearch(starts, f.At)
		for _, w := range writes[first:] {
			if w.Start >= until {
				break
			}
			if took := w.End - f.At; f.Recovery == 0 || took < f.Recovery {
				f.Recovery = took
			}
		}
		a := kinds[f.Kind]
		if a == nil {
			d := descriptions[f.Kind]
			a = &Availability{Kind: f.Kind, Class: d.class, What: d.text}
			kinds[f.Kind] = a
		}
		// The terms that began before the next fault, and not before this one.
		next, _ := slices.BinarySearch(terms, f.At)
		if f.Recovery > 0 && next < len(terms) && terms[next] < until {
			r.Failovers = append(r.Failovers, f.Recovery)
		}
		a.Count++
		a.Longest = max(a.Longest, f.Gap)
		if f.Recovery > 0 {
			a.Recovery = append(a.Recovery, f.Recovery)
		}
	}
	slices.Sort(r.Failovers)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		a := kinds[kind]
		slices.Sort(a.Recovery)
		r.Availability = append(r.Availability, *a)
	}
	slices.SortStableFunc(r.Availability, func(a, b Availability) int { return cmp.Compare(b.Longest, a.Longest) })
}

// terms returns the times at which a term began, ascending.
func (r *Report) terms() []int64 {
	first := map[uint64]int64{}
	for _, s := range r.Spans {
		if s.State != Leading {
			continue
		}
		// A leader that was stopped and goes on has two spans of one term.
		if at, ok := first[s.Term]; !ok || s.From < at {
			first[s.Term] = s.From
		}
	}
	return slices.Sorted(maps.Values(first))
}

// charge gives each fault the longest time without a write among those that it
// is to blame for: a time that faults happened in is the first one's, any other
// that of the last fault before it. ends are sorted.
func (r *Report) charge(ends []int64) {
	before, next := int64(0), 0 // next: the first fault at or behind before
	for _, end := range append(slices.Clone(ends), r.Duration) {
		for next < len(r.Faults) && r.Faults[next].At < before {
			next++
		}
		blame := next - 1
		if next < len(r.Faults) && r.Faults[next].At < end {
			blame = next
		}
		if blame >= 0 {
			if f := &r.Faults[blame]; end-before > f.Gap {
				f.GapAt, f.Gap = before, end-before
			}
		}
		r.LongestGap = max(r.LongestGap, end-before)
		before = max(before, end)
	}
}

// Median returns the median of the recovery times, in nanoseconds, 0 if there are none.
func (a Availability) Median() int64 {
	if len(a.Recovery) == 0 {
		return 0
	}
	return a.Recovery[len(a.Recovery)/2]
}

// orNone prints a duration that may not be known: a fault in the middle of what an
// earlier one did has none of its own.
func orNone(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return since(ns)
}

// Summary returns a few lines of text.
func (r *Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s, %d processes, %d faults, %d processes killed, %d terms\n",
		r.Seed, time.Duration(r.Duration).Round(time.Millisecond), r.Processes, len(r.Faults), r.Kills, r.Leaders)
	fmt.Fprintf(&b, "%d calls, %d writes succeeded, %d calls died with their process; the longest time without a write was %s\n\n", r.Calls, r.Writes, r.Unanswered, since(r.LongestGap))
	fmt.Fprintf(&b, "%-16s %5s  %20s  %s\n", "fault", "times", "longest without write", "write after it (median)")
	for _, a := range r.Availability {
		fmt.Fprintf(&b, "%-16s %5d  %20s  %s\n", a.Kind, a.Count, orNone(a.Longest), orNone(a.Median()))
	}
	b.WriteByte('\n')
	for _, v := range r.Verdicts {
		word := "ok"
		switch {
		case len(v.Violations) > 0:
			word, v.Detail = "VIOLATED", ""
		case v.Undecided != "":
			word = "undecided"
		}
		fmt.Fprintf(&b, "%-10s %-9s %s\n", v.Name, word, strings.TrimSpace(v.Detail+" "+v.Undecided))
		for _, text := range v.Violations {
			fmt.Fprintf(&b, "           - %s\n", text)
		}
	}
	if names := r.undecided(); len(names) > 0 {
		fmt.Fprintf(&b, "\nundecided: %s. What could not be judged is not proven.\n", strings.Join(names, ", "))
	}
	return b.String()
}

// WriteJSON writes the report, with its outcome and all but the calls, as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(struct {
		Outcome Outcome `json:"outcome"`
		*Report
	}{r.Outcome(), r})
}

// WriteFiles writes the report to the file path, as HTML, and beside it as JSON,
// with ".json" added to the name, and what checks attached, with their names
// added. They are not synced.
func (r *Report) WriteFiles(path string) error {
	for name, b := range r.attachments {
		if err := os.WriteFile(path+"."+name, b, 0o666); err != nil {
			return err
		}
	}
	page, err := os.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(r.WriteHTML(page, filepath.Base(path)+"."), page.Close())
	data, jerr := os.Create(path + ".json")
	if jerr != nil {
		return errors.Join(err, jerr)
	}
	return errors.Join(err, r.WriteJSON(data), data.Close())
}
