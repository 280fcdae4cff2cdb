package chaos_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// mutationEnv names the promise that a program which was built with the tag
// mutation breaks: see internal/mutant.
const mutationEnv = "PEBBLEPARTY_MUTATION"

// mutations are those that plans find which hurt where each is weak, by the verdict
// of a check that is meant for it.
var mutations = []struct {
	name          string
	job           string // of jobs; "" is Standard
	plan          chaos.Plan
	verdict, text string
}{
	{"forget-duplicates", "lists", chaos.Plan{Pause: -1, Every: 250 * time.Millisecond, Faults: []chaos.FaultKind{chaos.KillLeader}},
		"lists", "again under"},
	{"resume-forward", "lists", chaos.Plan{Lanes: 4, Every: 150 * time.Millisecond, Pause: -1, Faults: []chaos.FaultKind{chaos.KillLeader, chaos.Resign}},
		"lists", "a walk forward"},
	{"resume-backward", "lists", chaos.Plan{Lanes: 4, Every: 150 * time.Millisecond, Pause: -1, Faults: []chaos.FaultKind{chaos.KillLeader, chaos.Resign}},
		"lists", "a walk backward"},
	{"skip-event", "lists", chaos.Plan{Lanes: 6, Pause: -1, Faults: []chaos.FaultKind{}},
		"lists", "where the log has"},
	{"deposed-leader", "", chaos.Plan{Every: 100 * time.Millisecond, Faults: []chaos.FaultKind{chaos.Resign, chaos.KillFollower}},
		"registers", "not linearizable"},
	// Few writers with pauses: of an entry that nobody was told of yet, nobody can say that it was lost.
	{"lose-last-frame", "lists", chaos.Plan{Processes: 2, Every: 200 * time.Millisecond, Pause: 50 * time.Millisecond, Faults: []chaos.FaultKind{chaos.KillLeader, chaos.KillAll}},
		"lists", "not at all"},
	{"stale-local-read", "", chaos.Plan{Faults: []chaos.FaultKind{}},
		"registers", "not linearizable"},
	{"late-word", "", chaos.Plan{Faults: []chaos.FaultKind{}},
		"registers", "not linearizable"},
	{"split-batch", "", chaos.Plan{Faults: []chaos.FaultKind{}},
		"bank", "not 16000"},
	{"replay-loses-ops", "", chaos.Plan{Every: 250 * time.Millisecond, Faults: []chaos.FaultKind{chaos.KillLeader}},
		"state", "the replica of process"},
	// A write without the sync that it asked for outlives its process, in the page cache.
	{"ack-before-sync", "lists", chaos.Plan{Every: 250 * time.Millisecond, Faults: []chaos.FaultKind{chaos.PowerCut}},
		"lists", "not at all"},
	{"time-goes-back", "lists", chaos.Plan{Every: 200 * time.Millisecond, Faults: []chaos.FaultKind{chaos.ClockJump, chaos.Resign}},
		"times", "the one before"},
	{"lost-wake-up", "lists", chaos.Plan{Faults: []chaos.FaultKind{}},
		"calls", "then nothing for"},
}

// tested are mutations that a test of another package finds, and what it says then.
var tested = []struct {
	name, pkg, test string
	says            *regexp.Regexp
}{
	{"ack-before-sync", "../eventlog", "TestLog_SurvivesPowerCutAtEveryChange", regexp.MustCompile(`(last is \d+|\d+ is missing), durable was \d+`)},
	{"note-too-far", "../party", "TestSubscription_QuietWorkersAreKilled", regexp.MustCompile(`noted is \d+, of which \d+ is the last that was passed`)},
}

const (
	mutationPiece  = 3 * time.Second // of work at a time
	mutationPieces = 12              // at most; then it is not found
)

// buildMutated builds this test's program with the promises to break in it.
func buildMutated(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "chaos.test")
	out, err := exec.Command("go", "test", "-c", "-tags", "mutation", "-o", path, ".").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no go in PATH to build the broken programs with (https://go.dev/dl)")
	}
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// mutated returns a way to start processes that break one promise; "" is none.
func mutated(program, mutation, job string) func() (*exec.Cmd, error) {
	return func() (*exec.Cmd, error) {
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), mutationEnv+"="+mutation, jobEnv+"="+job)
		return cmd, nil
	}
}

// TestRun_FindsEveryMutation: whatever promise a process breaks, a plan of some
// seconds finds it, and finds nothing where none is broken.
func TestRun_FindsEveryMutation(t *testing.T) {
	if testing.Short() {
		t.Skip("builds this test again and runs it with each mutation, which takes a minute: run it without -short")
	}
	program := buildMutated(t)
	known(t, program)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if !slices.Contains(chaos.AllFaults(), chaos.PowerCut) && slices.Contains(m.plan.Faults, chaos.PowerCut) {
				t.Skip("no power can be cut on this system")
			}
			start := time.Now()
			for piece := range mutationPieces {
				p := m.plan
				p.Seed, p.Duration, p.Dir = uint64(piece)+1, mutationPiece, t.TempDir()
				p.Job, p.Command = jobs[m.job], mutated(program, m.name, m.job)
				report, err := chaos.Run(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				if text, ok := found(report, m.verdict, m.text); ok {
					t.Logf("found within %s of work, %s with start and checks, seed %d: %s: %s", time.Duration(piece+1)*mutationPiece,
						time.Since(start).Round(time.Millisecond), p.Seed, m.verdict, text)
					return
				}
				t.Logf("seed %d: not found:\n%s", p.Seed, report.Summary())
			}
			t.Errorf("not found in %d runs", mutationPieces)
		})
	}
	for _, m := range tested {
		t.Run(m.name+" by "+m.test, func(t *testing.T) {
			start := time.Now()
			test := exec.Command("go", "test", "-count=1", "-tags", "mutation", "-run", "^"+m.test+"$", m.pkg)
			test.Env = append(os.Environ(), mutationEnv+"="+m.name)
			out, err := test.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !m.says.Match(out) {
				t.Fatalf("not found (%v):\n%s", err, out)
			}
			t.Logf("found within %s, building included: %s", time.Since(start).Round(time.Millisecond), m.says.Find(out))
		})
	}
	t.Run("none", func(t *testing.T) {
		report, err := chaos.Run(t.Context(), chaos.Plan{Seed: 1, Duration: mutationPiece, Every: 250 * time.Millisecond, Dir: t.TempDir(), Command: mutated(program, "", "")})
		if err != nil {
			t.Fatal(err)
		}
		if !report.OK() {
			t.Errorf("no promise is broken, and it finds:\n%s", report.Summary())
		}
	})
}

// known fails unless the table has the mutations that there are.
func known(t *testing.T, program string) {
	t.Helper()
	cmd, _ := mutated(program, "?", "")()
	out, _ := cmd.CombinedOutput()
	_, list, _ := strings.Cut(strings.TrimSpace(string(out)), "there are: ")
	var names []string
	for _, m := range mutations {
		names = append(names, m.name)
	}
	for _, m := range tested {
		names = append(names, m.name)
	}
	there := strings.Fields(list)
	slices.Sort(names)
	names = slices.Compact(names)
	slices.Sort(there)
	if !slices.Equal(names, there) {
		t.Errorf("there are the mutations %q; those tried are %q", there, names)
	}
}

// found looks for a violation.
func found(r *chaos.Report, verdict, text string) (string, bool) {
	for _, v := range r.Verdicts {
		if v.Name != verdict {
			continue
		}
		if i := slices.IndexFunc(v.Violations, func(s string) bool { return strings.Contains(s, text) }); i >= 0 {
			return v.Violations[i], true
		}
	}
	return "", false
}
