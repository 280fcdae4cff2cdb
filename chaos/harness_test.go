package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/gofrs/flock"

	"github.com/pebbleparty/pebbleparty/chaos"
	"github.com/pebbleparty/pebbleparty/party"
)

// errOwn is what a workload of these tests fails with.
var errOwn = errors.New("something of the workload's own")

// own is a workload as a user writes it. Its work is one write, but for what
// spoil does.
type own struct {
	spoil   func(ctx context.Context, l *chaos.Lane) error
	verdict chaos.Verdict
}

func (own) Name() string                             { return "own" }
func (own) Prepare(context.Context, *party.DB) error { return nil }

func (w own) Work(ctx context.Context, l *chaos.Lane) error {
	return l.Do(ctx, chaos.Op{Name: "write", Key: "own", Write: true}, func(ctx context.Context) (string, error) {
		if w.spoil != nil {
			if err := w.spoil(ctx, l); err != nil {
				return "", err
			}
		}
		return "", l.DB.Set(ctx, []byte("own"), []byte(l.ID), pebble.Sync)
	})
}

func (w own) Check(ctx context.Context, e *chaos.Evidence) chaos.Verdict {
	if _, err := e.DB.Get(ctx, []byte("own")); err != nil {
		return chaos.Verdict{Violations: []string{err.Error()}}
	}
	return w.verdict
}

// kinds writes batches of all kinds of operations on a few keys.
type kinds struct{ own }

func (kinds) Work(ctx context.Context, l *chaos.Lane) error {
	key := func() []byte { return []byte{'k', byte('a' + l.Rand.IntN(12))} }
	var b pebble.Batch
	for range 1 + l.Rand.IntN(4) {
		var err error
		switch l.Rand.IntN(6) {
		case 0:
			err = b.Delete(key(), nil)
		case 1:
			err = b.SingleDelete(key(), nil)
		case 2:
			low, high := key(), key()
			if bytes.Compare(low, high) > 0 {
				low, high = high, low
			}
			err = b.DeleteRange(low, high, nil)
		case 3, 4:
			err = b.Merge(key(), strconv.AppendInt(nil, l.Rand.Int64N(100), 10), nil)
		default:
			err = b.Set(key(), strconv.AppendInt(nil, l.Rand.Int64N(100), 10), nil)
		}
		if err != nil {
			return err
		}
	}
	return l.Do(ctx, chaos.Op{Name: "apply", Write: true}, func(ctx context.Context) (string, error) {
		_, err := l.DB.Apply(ctx, &b, pebble.NoSync)
		return "", err
	})
}

func (kinds) Check(context.Context, *chaos.Evidence) chaos.Verdict { return chaos.Verdict{} }

// bulk writes so much that the log has many segments, and reads it again: what is
// gone is as wrong as what is another's.
type bulk struct{ own }

func (bulk) Work(ctx context.Context, l *chaos.Lane) error {
	n, _ := l.State.(int)
	key := []byte(fmt.Sprintf("bulk/%s/%d", l.ID, n))
	return l.Do(ctx, chaos.Op{Name: "write", Key: string(key), Write: true}, func(ctx context.Context) (string, error) {
		if err := l.DB.Set(ctx, key, bytes.Repeat(key, 1000), pebble.Sync); err != nil {
			return "", err
		}
		l.State = n + 1
		return "", nil
	})
}

func (bulk) Check(ctx context.Context, e *chaos.Evidence) (v chaos.Verdict) {
	for _, c := range e.Calls {
		if !c.OK() {
			continue
		}
		got, err := e.DB.Get(ctx, []byte(c.Key))
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte(c.Key), 1000)) {
			v.Violations = append(v.Violations, fmt.Sprintf("%s is %.40q, %v", c.Key, got, err))
		}
	}
	return v
}

// named is a workload of any name.
type named struct{ name string }

func (n named) Name() string                                       { return n.name }
func (named) Prepare(context.Context, *party.DB) error             { return nil }
func (named) Work(context.Context, *chaos.Lane) error              { return nil }
func (named) Check(context.Context, *chaos.Evidence) chaos.Verdict { return chaos.Verdict{} }

func jobOf(w own) *chaos.Job { return &chaos.Job{Workloads: []chaos.Workload{w}} }

var jobs = map[string]*chaos.Job{
	"good":     jobOf(own{}),
	"lists":    {Options: chaos.StandardOptions(), Workloads: []chaos.Workload{chaos.Lists{}}},
	"kinds":    {Options: chaos.StandardOptions(), LocalReads: 0.5, Workloads: []chaos.Workload{kinds{}}},
	"violated": jobOf(own{verdict: chaos.Verdict{Violations: []string{"the check says so"}}}),
	"exits": jobOf(own{spoil: func(_ context.Context, l *chaos.Lane) error {
		if l.Process == 1 && l.ID == "own-1-0-0" {
			os.Stderr.WriteString("last words\n")
			os.Exit(3)
		}
		return nil
	}}),
	"fails": jobOf(own{spoil: func(_ context.Context, l *chaos.Lane) error {
		if l.Process == 0 {
			return errOwn
		}
		return nil
	}}),
	"late": jobOf(own{spoil: func(ctx context.Context, l *chaos.Lane) error {
		if l.Process == 0 && l.State == nil {
			l.State = true
			<-ctx.Done()
			<-time.After(500 * time.Millisecond) // what must not happen
		}
		return nil
	}}),
	"leaks": once(func() error {
		go func() { select {} }()
		f, err := os.Open(filepath.Join(dirOf(), "leader.lock"))
		if err != nil {
			return err
		}
		// As a Close leaves it that forgets its replica.
		folder := filepath.Join(dirOf(), "replicas", strings.Repeat("ab", 16))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		table, err := os.Create(filepath.Join(folder, "000001.sst"))
		if err != nil {
			return err
		}
		lock := flock.New(filepath.Join(folder, "lock"))
		kept = append(kept, f, table, lock)
		_, err = lock.TryLock() // otherwise a leader removes the folder
		return err
	}),
	"litters": once(func() error {
		s, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dirOf(), "s")})
		if err == nil {
			s.SetUnlinkOnClose(false)
			err = s.Close()
		}
		return errors.Join(err,
			os.WriteFile(filepath.Join(dirOf(), "stray"), nil, 0o600),
			os.WriteFile(filepath.Join(dirOf(), "..", "000001.sst.tmp"), nil, 0o600))
	}),
	"closes badly": {Workloads: []chaos.Workload{badEnd{}}},
	// The subscription of the process 0 is there, and delivers nothing.
	"hangs": jobOf(own{spoil: func(_ context.Context, l *chaos.Lane) error {
		if l.Process == 0 {
			l.Delivered(0)
			l.Due(1)
		}
		return nil
	}}),
	"aged": {Options: &party.Options{Pebble: chaos.StandardOptions().Pebble, Retention: party.Retention{MaxBytes: -1, MaxAge: time.Hour}},
		LocalReads: 0.5, Workloads: []chaos.Workload{bulk{}}},
	"counter": {Options: chaos.StandardOptions(), Workloads: []chaos.Workload{Counter{}}},
	"feed":    {Options: chaos.StandardOptions(), Workloads: []chaos.Workload{Feed{}}},
	// A write that is said to be synced, and is not.
	"unsynced": {Workloads: []chaos.Workload{liar{}}},
	"deaf":     jobOf(own{spoil: func(context.Context, *chaos.Lane) error { select {} }}),
}

// badEnd makes every process fail as it ends, once its handle is closed.
type badEnd struct{ own }

func (w badEnd) Work(ctx context.Context, l *chaos.Lane) error {
	if l.Index == 0 {
		<-ctx.Done()
		os.Exit(3)
	}
	return w.own.Work(ctx, l)
}

// liar has acknowledged writes that a power cut can take.
type liar struct{ chaos.Tail }

func (liar) Work(ctx context.Context, l *chaos.Lane) error {
	n, _ := l.State.(int)
	l.State = n + 1
	key := fmt.Sprintf("tail/%s/%d", l.ID, n)
	return l.Do(ctx, chaos.Op{Name: "write", Key: key, Write: true}, func(ctx context.Context) (string, error) {
		return "", l.DB.Set(ctx, []byte(key), nil, pebble.NoSync)
	})
}

// once is a job that does something once in the process 0, as its first write.
func once(spoil func() error) *chaos.Job {
	return jobOf(own{spoil: func(_ context.Context, l *chaos.Lane) error {
		if l.Process != 0 || l.State != nil {
			return nil
		}
		l.State = true
		return spoil()
	}})
}

// dirOf is the folder party of the database that this process works on.
func dirOf() string { return filepath.Join(os.Getenv(dirEnv), "db", "party") }

// kept is what a process never closes.
var kept []io.Closer

// plan returns a short one without faults, in which processes do a job.
func plan(t *testing.T, job string) chaos.Plan {
	dir := t.TempDir()
	return chaos.Plan{
		Seed: 1, Duration: 700 * time.Millisecond, Processes: 2, Lanes: 1, Faults: []chaos.FaultKind{}, Dir: dir,
		Job: jobs[job],
		Command: func() (*exec.Cmd, error) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), jobEnv+"="+job, dirEnv+"="+dir)
			return cmd, nil
		},
	}
}

// run runs a plan and returns its violations.
func run(t *testing.T, p chaos.Plan) (*chaos.Report, string) {
	t.Helper()
	report, err := chaos.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range report.Verdicts {
		for _, text := range v.Violations {
			all = append(all, v.Name+": "+text)
		}
	}
	if report.OK() != (len(all) == 0) {
		t.Errorf("OK is %v with violations %q", report.OK(), all)
	}
	return report, strings.Join(all, "\n")
}

// What a harness is good for is what it finds.
func TestRun_Finds(t *testing.T) {
	for _, tc := range []struct {
		job  string
		want []string
	}{
		{"good", nil},
		{"violated", []string{"own: the check says so"}},
		{"exits", []string{"last words"}},
		{"fails", []string{errOwn.Error()}},
		{"late", []string{"calls: write own by process"}},
		{"leaks", []string{
			"leaks: process 0 has closed: goroutine ", "leaks: process 0 has closed: open 1 times: ",
			"leaks: process 0 has closed: its replica is still there: ", "files: left behind: party/replicas/abab"}},
		{"hangs", []string{"calls: process 0, own at", "the subscription has delivered 0 and then nothing for"}},
		{"litters", []string{"files: left behind: party/s", "files: left behind: party/stray", "files: left behind: 000001.sst.tmp"}},
	} {
		t.Run(tc.job, func(t *testing.T) {
			p := plan(t, tc.job)
			if tc.job == "late" {
				p.CallTimeout, p.Patience = 4*time.Second, time.Millisecond
				p.Duration = 5 * time.Second
			}
			report, got := run(t, p)
			if tc.want == nil && got != "" {
				t.Errorf("violations %q", got)
			}
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("violations %q, want %q", got, want)
				}
			}
			if report.Writes == 0 {
				t.Error("no write was recorded")
			}
			if _, err := os.Stat(filepath.Join(p.Dir, "records")); err != nil {
				t.Errorf("a folder that was given is kept: %v", err)
			}
		})
	}
}

// A process that does not close is found, and does not hold up the end.
func TestRun_FindsProcessThatDoesNotClose(t *testing.T) {
	p := plan(t, "deaf")
	p.CallTimeout, p.Patience = 3*time.Second, 2*time.Second
	report, err := chaos.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(report.Summary(), "has not closed within") {
		t.Errorf("not found:\n%s", report.Summary())
	}
}

// A place has one process at a time, however they end: one more would go on when
// all are told to close, and leave behind what it needs.
func TestRun_OneProcessInAPlace(t *testing.T) {
	p := plan(t, "closes badly")
	p.Lanes = 2
	p.Duration, p.Every, p.Faults = 3*time.Second, 200*time.Millisecond, []chaos.FaultKind{chaos.CloseLeader, chaos.CloseFollower}
	_, got := run(t, p)
	if !strings.Contains(got, "exit status 3") {
		t.Error("no process failed as it closed")
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(line, "exit status 3") {
			t.Errorf("besides: %s", line)
		}
	}
}

// That a write is acknowledged before it is on the disk shows when the power is cut.
func TestRun_FindsWritesThatWereNotSynced(t *testing.T) {
	if !slices.Contains(chaos.AllFaults(), chaos.PowerCut) {
		t.Skip("a power cut needs hard links and inodes, which Windows does not show: run this on Unix")
	}
	p := plan(t, "unsynced")
	p.Duration, p.Every, p.Faults = 3*time.Second, 250*time.Millisecond, []chaos.FaultKind{chaos.PowerCut}
	if _, got := run(t, p); !strings.Contains(got, "it was synced") {
		t.Errorf("violations %q", got)
	}
}

// Faults that are done to a user's own processes, and a report that is written.
func TestRun_OwnJob(t *testing.T) {
	p := plan(t, "good")
	p.Duration, p.Every, p.Faults = 2*time.Second, 200*time.Millisecond, []chaos.FaultKind{chaos.KillLeader}
	report, got := run(t, p)
	if got != "" || report.Kills == 0 || report.Leaders < 2 {
		t.Errorf("violations %q, %d kills, %d leaders", got, report.Kills, report.Leaders)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := report.WriteFiles(path); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "http://www.w3.org/2000/svg" // a name, and nothing is fetched there
	for _, bad := range []string{"{{", "http://", "https://", "src="} {
		if strings.Contains(strings.ReplaceAll(string(page), namespace, ""), bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	if _, err := os.Stat(path + ".json"); err != nil {
		t.Error(err)
	}
}

// Every replica has what the log says, whatever operations that has.
func TestRun_ComparesStatesWithReplay(t *testing.T) {
	p := plan(t, "kinds")
	p.Processes, p.Duration, p.Every, p.Faults = 3, 2*time.Second, 200*time.Millisecond, []chaos.FaultKind{chaos.KillLeader}
	report, got := run(t, p)
	if got != "" {
		t.Error(got)
	}
	for _, v := range report.Verdicts {
		if v.Name == "state" && (!strings.HasPrefix(v.Detail, "3 replicas and the database") || v.Undecided != "") {
			t.Errorf("it says %q %q", v.Detail, v.Undecided)
		}
	}
}

func TestRun_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	p := plan(t, "good")
	p.Duration, p.Every, p.Faults = time.Hour, 50*time.Millisecond, []chaos.FaultKind{chaos.KillFollower}
	p.Progress = func(string) { cancel(errOwn) }
	if _, err := chaos.Run(ctx, p); !errors.Is(err, errOwn) {
		t.Errorf("error %v, want %v", err, errOwn)
	}
}

func TestPlan_Refused(t *testing.T) {
	for name, p := range map[string]chaos.Plan{
		"no lanes":      {Lanes: -1},
		"nobody writes": {Lanes: 1},
		"unknown fault": {Faults: []chaos.FaultKind{"earthquake"}},
		"negative":      {Duration: -1},
		"local reads":   {Job: &chaos.Job{LocalReads: 1.5}},
		"name of ours":  {Job: &chaos.Job{Workloads: []chaos.Workload{named{"state"}}}},
		"same names":    {Job: &chaos.Job{Workloads: []chaos.Workload{own{}, own{}}}},
		"events":        {Job: &chaos.Job{Options: &party.Options{Events: party.Events{RoleChanged: func(party.RoleChange) {}}}}},
	} {
		p.Dir = t.TempDir()
		if _, err := chaos.Run(t.Context(), p); err == nil {
			t.Errorf("%s: ran", name)
		}
	}
}

func TestPlan_SeedFixesSchedule(t *testing.T) {
	p := chaos.Plan{Seed: 7, Duration: time.Minute}
	first, again := p.Schedule(), p.Schedule()
	if len(first) < 50 || !reflect.DeepEqual(first, again) {
		t.Errorf("%d faults, then %d others", len(first), len(again))
	}
	kinds := map[chaos.FaultKind]bool{}
	for _, f := range first {
		kinds[f.Kind] = true
	}
	if len(kinds) < 10 {
		t.Errorf("only %d kinds in a minute", len(kinds))
	}
	p.Seed = 8
	if reflect.DeepEqual(first, p.Schedule()) {
		t.Error("another seed gives the same schedule")
	}
}

// Of the processes that live at the same time about the share asked for reads
// locally, for whatever seed.
func TestPlan_LocalReads(t *testing.T) {
	for _, share := range []float64{0, 0.25, 0.5, 1} {
		for seed := range uint64(50) {
			p := chaos.Plan{Seed: seed, Processes: 8, Job: &chaos.Job{LocalReads: share}}
			for n := range 10 {
				local := 0
				for place := range p.Processes {
					if chaos.ReadsLocally(p, place, n) {
						local++
					}
				}
				if want := share * 8; math.Abs(float64(local)-want) > 1.5 || share == 0 && local > 0 || share == 1 && local < 8 {
					t.Errorf("seed %d, share %g: %d of 8 processes read locally", seed, share, local)
				}
			}
		}
	}
}
