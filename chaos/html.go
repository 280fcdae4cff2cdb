package chaos

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The page and what is put into it.
var (
	//go:embed page/page.html
	page string
	//go:embed page/style.css
	style string
	//go:embed page/words.js
	words string
	//go:embed page/charts.js
	charts string
)

// pagePoints is how many calls the page has at most. Of more, every nth is in,
// and every one of the slowest.
const pagePoints = 120_000

// pagePicture is how large an attachment is at most that the page has in it;
// it links all.
const pagePicture = 4 << 20

// points are the calls as the page draws them: columns, as they are smaller than
// rows. Times are microseconds.
type points struct {
	Start   []int64  `json:"start"` // each since the one before
	Took    []int64  `json:"took"`  // -1: no answer
	Process []int    `json:"process"`
	Op      []int    `json:"op"` // index of ops
	Ops     []string `json:"ops"`
	OpWrite []bool   `json:"opWrite"` // which of Ops are writes
	Writes  []int    `json:"writes"`  // that succeeded, in each step of Step
	Reads   []int    `json:"reads"`
	Step    int64    `json:"step"`
	Of      int      `json:"of"` // how many there are in all
}

// WriteHTML writes the report as one page that needs nothing else and no network.
// Links to attachments get the prefix.
func (r *Report) WriteHTML(w io.Writer, prefix string) error {
	report, err := json.Marshal(r)
	if err != nil {
		return err
	}
	calls, err := json.Marshal(r.points())
	if err != nil {
		return err
	}
	shown := map[string]string{}
	for name, b := range r.attachments {
		if len(b) <= pagePicture {
			shown[name] = string(b)
		}
	}
	pictures, err := json.Marshal(shown)
	if err != nil {
		return err
	}
	link, err := json.Marshal(prefix)
	if err != nil {
		return err
	}
	title := map[Outcome]string{
		Held: "all promises held", Undecided: "held, as far as it could be judged", Violated: "VIOLATED",
	}[r.Outcome()]
	// json.Marshal writes < as \u003c, so no text ends the element that it is in.
	_, err = strings.NewReplacer(
		"{{title}}", fmt.Sprintf("chaos, seed %d: %s", r.Seed, title),
		"{{report}}", string(report), "{{calls}}", string(calls), "{{pictures}}", string(pictures),
		"{{prefix}}", string(link), "{{style}}", style, "{{script}}", words+charts,
	).WriteString(w, page)
	return err
}

func (r *Report) points() points {
	p := points{Of: len(r.calls), Step: max(100_000, r.Duration/1000/200)}
	n := int(max(0, r.Duration)/1000/p.Step) + 1
	p.Writes, p.Reads = make([]int, n), make([]int, n)
	var took []int64
	for _, c := range r.calls {
		if c.OK() && c.Name != "subscribe" {
			took = append(took, c.End-c.Start)
			if i := c.End / 1000 / p.Step; i >= 0 && i < int64(n) {
				if c.Write {
					p.Writes[i]++
				} else {
					p.Reads[i]++
				}
			}
		}
	}
	every, slow := 1, int64(0)
	if len(r.calls) > pagePoints {
		every = len(r.calls)/(pagePoints/2) + 1
		slices.Sort(took)
		slow = took[max(0, len(took)-pagePoints/2)]
	}
	index, last := map[string]int{}, int64(0)
	for i, c := range r.calls {
		if every > 1 && i%every != 0 && c.Answered() && c.End-c.Start < slow {
			continue
		}
		name := c.Workload + " " + c.Name
		if _, ok := index[name]; !ok {
			index[name] = len(p.Ops)
			p.Ops, p.OpWrite = append(p.Ops, name), append(p.OpWrite, c.Write)
		}
		d := int64(-1)
		if c.Answered() {
			d = (c.End - c.Start) / 1000
		}
		p.Start, p.Took = append(p.Start, c.Start/1000-last), append(p.Took, d)
		last = c.Start / 1000
		p.Process, p.Op = append(p.Process, c.Process), append(p.Op, index[name])
	}
	return p
}
