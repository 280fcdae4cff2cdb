package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	demo "github.com/pebbleparty/pebbleparty/cmd/demo"
)

// The test binary, run with this variable, is the command: with its race
// detector, and with the workers that it starts.
const asCommand = "DEMO_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		demo.Main()
		return
	}
	os.Exit(m.Run())
}

// command returns a command line that has not been started. It ends with the test.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	// With the race detector each process would sleep for a second at its end.
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// run runs a command line to its end.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Errorf("demo %s: %v", strings.Join(args, " "), err) // not Fatal: this may be another goroutine
		return -1, "", err.Error()
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// want runs a command line that must end with code, print stdout, and say stderr.
func want(t *testing.T, code int, stdout, stderr string, args ...string) {
	t.Helper()
	wantWith(t, "", code, stdout, stderr, args...)
}

func wantWith(t *testing.T, stdin string, code int, stdout, stderr string, args ...string) {
	t.Helper()
	gotCode, gotOut, gotErr := run(t, stdin, args...)
	if gotCode != code || gotOut != stdout || !strings.Contains(gotErr, stderr) || (stderr == "") != (gotErr == "") {
		t.Errorf("demo %s:\n got exit code %d, output %q, error %q\nwant exit code %d, output %q, error with %q",
			strings.Join(args, " "), gotCode, gotOut, gotErr, code, stdout, stderr)
	}
}

func TestDemo_Commands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	absent := filepath.Join(t.TempDir(), "absent")
	for _, row := range []struct {
		name           string
		args           []string
		stdin          string
		code           int
		stdout, stderr string
	}{
		{name: "put", args: []string{"put", dir, "a", "1"}},
		{name: "get", args: []string{"get", dir, "a"}, stdout: "1"},
		{name: "get a missing key", args: []string{"get", dir, "b"}, code: 1, stderr: "demo: b: not found\n"},
		{name: "put from standard input", args: []string{"put", dir, "b", "-"}, stdin: "x\ty\n\\\x00", stdout: ""},
		{name: "get is raw", args: []string{"get", dir, "b"}, stdout: "x\ty\n\\\x00"},
		{name: "put an empty value", args: []string{"put", dir, "bb", ""}},
		{name: "put a value with a dash", args: []string{"put", "--", dir, "c", "-1"}},
		{name: "scan escapes", args: []string{"scan", dir}, stdout: "a\t1\nb\tx\\ty\\n\\\\\\x00\nbb\t\nc\t-1\n"},
		{name: "scan reverse", args: []string{"scan", dir, "--reverse", "--keys"}, stdout: "c\nbb\nb\na\n"},
		{name: "scan prefix", args: []string{"scan", dir, "--prefix=b", "--keys"}, stdout: "b\nbb\n"},
		{name: "scan limit", args: []string{"scan", dir, "--limit=1", "--keys", "--prefix=b", "--reverse"}, stdout: "bb\n"},
		{name: "cas", args: []string{"cas", dir, "a", "--old=1", "--new=2"}},
		{name: "cas of another value", args: []string{"cas", dir, "a", "--old=1", "--new=3"}, code: 1, stderr: "not swapped"},
		{name: "cas of a key that exists", args: []string{"cas", dir, "a", "--absent", "--new=3"}, code: 1, stderr: "not swapped"},
		{name: "cas of an absent key", args: []string{"cas", dir, "d", "--absent", "--new="}},
		{name: "cas of an empty value", args: []string{"cas", dir, "d", "--old=", "--delete"}},
		{name: "cas left nothing", args: []string{"get", dir, "d"}, code: 1, stderr: "not found"},
		{name: "cas left the rest", args: []string{"get", dir, "a"}, stdout: "2"},
		{name: "del", args: []string{"del", dir, "a"}},
		{name: "del a missing key", args: []string{"del", dir, "a"}},
		{name: "deleted", args: []string{"get", dir, "a"}, code: 1, stderr: "not found"},

		{name: "get from no database", args: []string{"get", absent, "a"}, code: 1, stderr: "no such directory"},
		{name: "scan no database", args: []string{"scan", absent}, code: 1, stderr: "no such directory"},
		{name: "load no file", args: []string{"load", absent, absent}, code: 1, stderr: "no such file"},
		{name: "unknown command", args: []string{"nope"}, code: 2, stderr: "nope"},
		{name: "missing argument", args: []string{"put", dir, "a"}, code: 2, stderr: "<value>"},
		{name: "cas without old", args: []string{"cas", dir, "a", "--new=1"}, code: 2, stderr: "--old"},
		{name: "cas with old and absent", args: []string{"cas", dir, "a", "--absent", "--old=1", "--new=1"}, code: 2, stderr: "--old"},
		{name: "a negative limit", args: []string{"scan", dir, "--limit=-1"}, code: 2, stderr: "--limit"},
	} {
		// In order: each row stands on those before.
		t.Run(row.name, func(t *testing.T) {
			wantWith(t, row.stdin, row.code, row.stdout, row.stderr, row.args...)
		})
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("a command that reads has made a database")
	}
}

func TestDemo_Load(t *testing.T) {
	temp := t.TempDir()
	dir, root := filepath.Join(temp, "in", "db"), filepath.Join(temp, "in")
	write(t, filepath.Join(root, "x", "a.txt"), "A")
	write(t, filepath.Join(root, "x-y"), "B\n")
	write(t, filepath.Join(root, "empty"), "")
	write(t, filepath.Join(root, "big"), strings.Repeat("0123456789abcdef", 200_000)) // more than a batch
	for range 2 {                                                                     // the second time the database lies in the folder
		code, out, errs := run(t, "", "load", dir, root, "--prefix=p/")
		if code != 0 || !strings.HasPrefix(out, "loaded 4 keys, 3.2 MB in ") || errs != "" {
			t.Fatalf("exit code %d, %q, %q", code, out, errs)
		}
	}
	want(t, 0, "p/big\np/empty\np/x-y\np/x/a.txt\n", "", "scan", dir, "--keys")
	want(t, 0, "B\n", "", "get", dir, "p/x-y")
	if _, out, _ := run(t, "", "get", dir, "p/big"); len(out) != 3_200_000 {
		t.Errorf("the value of p/big has %d bytes", len(out))
	}
}

func TestDemo_LoadTabSeparated(t *testing.T) {
	temp := t.TempDir()
	dir, file := filepath.Join(temp, "db"), filepath.Join(temp, "pairs.tsv")
	write(t, file, "a\t1\r\n\nb\tC:\\new\ttab\na\t2\nlast\t")
	code, out, errs := run(t, "", "load", dir, file)
	if code != 0 || !strings.HasPrefix(out, "loaded 4 keys") {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	const all = "a\t2\nb\tC:\\\\new\\ttab\nlast\t\n"
	want(t, 0, all, "", "scan", dir)

	// What scan prints, load reads back.
	write(t, file, all)
	other := filepath.Join(temp, "other")
	if code, _, errs := run(t, "", "load", "--escaped", other, file); code != 0 {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	want(t, 0, all, "", "scan", other)

	write(t, file, "a\t3\nno tab\n")
	want(t, 1, "", file+":2: no tab", "load", dir, file)
	want(t, 0, "2", "", "get", dir, "a") // its batch was not complete
}

func TestDemo_Status(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	holder := hold(t, dir)
	_, out, errs := run(t, "", "status", "--json", dir)
	var st struct {
		Role       string
		LeaderPID  int `json:"leader_pid"`
		Responding bool
		Term       uint64
		FirstSeq   uint64 `json:"first_seq"`
		Followers  int
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatalf("%v: %q, %q", err, out, errs)
	}
	if st.Role != "following" || st.LeaderPID != holder.Process.Pid || !st.Responding || st.Term != 1 || st.FirstSeq != 1 || st.Followers != 1 {
		t.Errorf("%+v; the holder is %d", st, holder.Process.Pid)
	}
	_, out, _ = run(t, "", "status", dir)
	if !regexp.MustCompile(fmt.Sprintf(`(?m)^leader +%d$`, holder.Process.Pid)).MatchString(out) {
		t.Errorf("status prints %q", out)
	}
}

func TestDemo_HoldEndsCleanly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal that interrupts another process: run this on Unix")
	}
	dir := filepath.Join(t.TempDir(), "db")
	holder := hold(t, dir)
	if err := holder.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err != nil {
		t.Errorf("hold ended with %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "party", "endpoint")); err == nil {
		t.Error("the endpoint file is left")
	}
}

func TestDemo_StoppedLeader(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal that stops a process: run this on Unix")
	}
	dir := filepath.Join(t.TempDir(), "db")
	holder := hold(t, dir)
	stop(t, holder)
	for _, args := range [][]string{{"get", dir, "a"}, {"put", dir, "a", "1"}, {"scan", dir}, {"status", dir}} {
		want(t, 1, "", "no answer within 1s", append([]string{"--timeout=1s"}, args...)...)
	}
	// A signal ends the wait. When so much of its input is read, the command is
	// past the point where a signal just kills it.
	waiting := command(t, "--timeout=0", "put", dir, "a", "-")
	var stderr bytes.Buffer
	waiting.Stderr = &stderr
	stdin, err := waiting.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := waiting.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := waiting.Wait(); err == nil || !strings.HasSuffix(stderr.String(), "interrupted\n") {
		t.Errorf("ended with %v, %q", err, stderr.String())
	}
	resume(t, holder)
	want(t, 1, "", "not found", "get", dir, "a")
}

// level-party's own example: put loops and get loops, started in any order, each
// turn a process of its own.
func TestDemo_PutAndGetLoops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	const loops, turns = 3, 8
	var wg sync.WaitGroup
	for i := range loops {
		wg.Go(func() {
			for range turns {
				code, out, errs := run(t, "", "get", dir, "time")
				switch {
				case code == 0 && strings.HasPrefix(out, "put "):
				case code == 1 && (strings.Contains(errs, "not found") || strings.Contains(errs, "no such directory")): // nobody has put yet
				default:
					t.Errorf("get: exit code %d, %q, %q", code, out, errs)
				}
			}
		})
		wg.Go(func() {
			for turn := range turns {
				if code, out, errs := run(t, "", "put", dir, "time", fmt.Sprintf("put %d by %d", turn, i)); code != 0 || out+errs != "" {
					t.Errorf("put: exit code %d, %q, %q", code, out, errs)
				}
			}
		})
	}
	wg.Wait()
	if code, out, errs := run(t, "", "get", dir, "time"); code != 0 || !strings.HasPrefix(out, fmt.Sprintf("put %d by ", turns-1)) {
		t.Errorf("at last: exit code %d, %q, %q", code, out, errs)
	}
}

// The main job, on some hundred files.
func TestDemo_MainJob(t *testing.T) {
	root, temp := t.TempDir(), t.TempDir()
	for i := range 400 {
		write(t, filepath.Join(root, fmt.Sprint("d", i%7), fmt.Sprint(i)), strings.Repeat(fmt.Sprintf("%d %d\n", i, i*i), i*9))
	}
	cmd := command(t, "--path", root, "--workers=3", "--kills=2")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp, "TMP="+temp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{"2 kills", "Compared 400 keys", "0 missing, 0 extra, 0 different"} {
		if !bytes.Contains(out, []byte(line)) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
