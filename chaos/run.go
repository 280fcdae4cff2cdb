package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// Run runs the plan, checks what came of it, and returns a Report; ask its OK
// whether all was well. It blocks for the duration of the plan, and for start,
// end and checks besides, some seconds as a rule.
//
// An error means that the plan could not be run or checked to its end: ctx ended,
// a process could not be started, the plan makes no sense. What the database does
// wrong is in the Report. The processes have ended in every case.
func Run(ctx context.Context, p Plan) (_ *Report, err error) {
	p = p.withDefaults()
	if err := p.validate(); err != nil {
		return nil, err
	}
	temporary := p.Dir == ""
	if temporary {
		if p.Dir, err = os.MkdirTemp("", "pebbleparty-chaos-"); err != nil {
			return nil, fmt.Errorf("chaos: %w", err)
		}
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	// The processes know it by the path that party does.
	if p.Dir, err = filepath.Abs(p.Dir); err == nil {
		p.Dir, err = filepath.EvalSymlinks(p.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	c := &conductor{
		plan: p, db: filepath.Join(p.Dir, "db"), records: filepath.Join(p.Dir, "records"),
		crew: map[int]*process{}, started: make([]int, p.Processes), news: make(chan news),
		origin: now(),
		report: &Report{
			Seed: p.Seed, Started: time.Now(), Processes: p.Processes, Dir: p.Dir,
			System:      fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
			attachments: map[string][]byte{},
		},
	}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("chaos: seed %d: %w (kept for a look: %s)", p.Seed, err, p.Dir)
	}
	if temporary && c.report.OK() {
		c.report.Dir = ""
		if err := os.RemoveAll(p.Dir); err != nil {
			return nil, fmt.Errorf("chaos: %w", err)
		}
	}
	return c.report, nil
}

func (c *conductor) run(ctx context.Context) error {
	if err := os.MkdirAll(c.records, 0o700); err != nil {
		return err
	}
	if old, err := os.ReadDir(c.records); err != nil || len(old) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", c.records))
	}
	if err := c.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := c.play(ctx); err != nil {
		return err
	}
	return c.check(ctx)
}

// prepare makes the database.
func (c *conductor) prepare(ctx context.Context) error {
	db, err := party.Open(ctx, c.db, c.plan.Job.options())
	if err != nil {
		return err
	}
	for _, w := range c.plan.Job.Workloads {
		if err := w.Prepare(ctx, db); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", w.Name(), err), db.Close())
		}
	}
	if err := db.Close(); err != nil {
		return err
	}
	if slices.Contains(c.plan.kinds(), PowerCut) {
		c.platter = newPlatter(filepath.Join(c.plan.Dir, "platter"), c.db)
		return c.platter.hold()
	}
	return nil
}

// check judges all that is to be judged.
func (c *conductor) check(ctx context.Context) error {
	h, err := readHistory(c.records, c.origin)
	if err != nil {
		return err
	}
	r := c.report
	r.calls = h.calls
	slices.SortStableFunc(r.Spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Process, b.Process), cmp.Compare(a.From, b.From))
	})
	r.measure()
	processes := Verdict{Name: "processes",
		Detail: fmt.Sprintf("%d processes started, %d of them with local reads; those that were not killed ended well", sum64(c.started), c.local())}
	for _, text := range c.broken {
		processes.violate(text)
	}
	r.add(processes)
	files, replicas := judgeFiles(c.db, r.Kills)
	r.add(files)
	r.add(judgeLeaks(h, c.ended))
	r.add(judgeCalls(h, r.Spans, r.Faults, c.plan))

	verify := Verdict{Name: "verify"}
	if found, err := party.VerifyWith(ctx, c.db, c.plan.Job.options()); err != nil {
		verify.violate(err.Error())
	} else {
		verify.Detail = fmt.Sprintf("%d keys, %d entries of the log, %d keys are what the log says", found.Keys, found.Entries, found.Compared)
	}
	r.add(verify)
	r.add(judgeTimes(c.db, c.clocks))
	if err := c.judge(ctx, h, replicas); err != nil {
		return err
	}
	r.add(judgeSwept(c.db, replicas))
	return context.Cause(ctx)
}

// judge has the workloads judge, and the leader that this takes sweep.
func (c *conductor) judge(ctx context.Context, h *history, replicas []string) error {
	db, err := party.Open(ctx, c.db, c.plan.Job.options())
	if err != nil {
		c.report.add(Verdict{Name: "open", Violations: []string{err.Error()}})
		return nil
	}
	// Before the checks of others, which may write.
	c.report.add(c.judgeStates(ctx, db, h))
	for _, w := range c.plan.Job.Workloads {
		e := &Evidence{DB: db, Dir: c.db, Notes: h.notes[w.Name()], Cuts: c.cuts, Now: c.now, Attach: func(name string) (io.WriteCloser, error) {
			return &attachment{name: name, to: c.report.attachments}, nil
		}}
		for _, call := range h.calls {
			if call.Workload == w.Name() {
				e.Calls = append(e.Calls, call)
			}
		}
		v := w.Check(ctx, e)
		v.Name = cmp.Or(v.Name, w.Name())
		c.report.add(v)
	}
	swept(ctx, c.db, replicas)
	if err := db.Close(); err != nil {
		c.report.add(Verdict{Name: "close", Violations: []string{err.Error()}})
	}
	return nil
}

// judgeCalls looks at what is the same for all workloads: errors, and calls that
// return too late, or had not returned when it was too late and their process
// ended. A process does not see time pass while it is stopped.
func judgeCalls(h *history, spans []Span, faults []Done, p Plan) Verdict {
	v := Verdict{Name: "calls"}
	for _, t := range h.trouble {
		v.violate(t)
	}
	stopped := map[int][]Span{}
	for _, s := range spans {
		if s.State == Stopped {
			stopped[s.Process] = append(stopped[s.Process], s)
		}
	}
	var longest int64
	refused := 0
	for _, c := range h.calls {
		end, how := c.End, "took"
		if !c.Answered() {
			end, how = endOf(spans, c), "had no answer after"
		}
		if c.excused {
			refused++
			if !explained(c, faults) {
				v.violate(fmt.Sprintf("%s %s by process %d at %s failed, and no disk did: %s", c.Name, c.Key, c.Process, since(c.Start), c.Err))
			}
		}
		took := end - c.Start
		for _, s := range stopped[c.Process] {
			took -= max(0, min(s.To, end)-max(s.From, c.Start))
		}
		if c.Answered() {
			longest = max(longest, took)
		}
		if limit := int64(p.CallTimeout + p.Patience); took > limit {
			v.violate(fmt.Sprintf("%s %s by process %d at %s %s %s", c.Name, c.Key, c.Process, since(c.Start), how, since(took)))
		}
	}
	v.Detail = fmt.Sprintf("%d calls, none failed but by Close and %d by a disk that did; the longest took %s", len(h.calls), refused, since(longest))
	return v
}

// endOf returns when the process that made a call ended.
func endOf(spans []Span, c Call) (end int64) {
	pid := 0
	for _, s := range spans {
		if s.Process == c.Process && s.From <= c.Start {
			pid = s.PID // of the last that began before the call: those of one place do not overlap
		}
	}
	for _, s := range spans {
		if s.Process == c.Process && s.PID == pid {
			end = max(end, s.To)
		}
	}
	return end
}

// local is how many processes were started that read from a replica of their own.
func (c *conductor) local() int {
	if c.plan.Job.options().LocalReads {
		return sum64(c.started)
	}
	count := 0
	for place, started := range c.started {
		for n := range started {
			if c.plan.readsLocally(place, n) {
				count++
			}
		}
	}
	return count
}

// convalescence is how long after a fault of the disk calls may begin that still
// fail of it.
const convalescence = 2 * time.Second

// explained tells whether the disk failed during a call, or just before it.
func explained(c Call, faults []Done) bool {
	return slices.ContainsFunc(faults, func(d Done) bool {
		return d.excuses(c) && c.End >= d.At && c.Start <= d.Until+int64(convalescence)
	})
}

func sum64(ns []int) int {
	total := 0
	for _, n := range ns {
		total += n
	}
	return total
}

// attachment is a file beside the report, until that is written.
type attachment struct {
	name string
	to   map[string][]byte
	b    []byte
}

func (a *attachment) Write(b []byte) (int, error) {
	a.b = append(a.b, b...)
	return len(b), nil
}

func (a *attachment) Close() error {
	a.to[a.name] = a.b
	return nil
}
