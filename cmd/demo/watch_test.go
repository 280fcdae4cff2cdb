package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// watch starts a watcher and returns its lines.
func watch(t *testing.T, args ...string) (lines <-chan string, interrupt func()) {
	t.Helper()
	lines, interrupt, _ = watcher(t, args...)
	return lines, interrupt
}

// watcher is watch for who wants to kill it: then nobody may interrupt it.
func watcher(t *testing.T, args ...string) (lines <-chan string, interrupt, kill func()) {
	t.Helper()
	cmd := command(t, append([]string{"watch"}, args...)...)
	c := start(t, cmd)
	kill = func() {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
	return c, func() {
		t.Helper()
		if runtime.GOOS == "windows" {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		for range c { // it closes its output as it ends
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("watch: %v", err)
		}
	}, kill
}

func line(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got, ok := <-lines:
		if !ok || got != want {
			t.Fatalf("watch prints %q (%t), want %q", got, ok, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("watch does not print %q within 30s", want)
	}
}

func TestDemo_Watch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	holder := hold(t, dir)
	want(t, 0, "", "", "put", dir, "a", "1")
	want(t, 0, "", "", "put", dir, "b\t", "2\n")
	all, interrupt := watch(t, dir, "--from=1")
	defer interrupt()
	line(t, all, "2\tSet\ta\t1")
	line(t, all, `3	Set	b\t	2\n`)
	bees, interruptBees := watch(t, dir, "--from=1", "--prefix=b", "--json")
	defer interruptBees()
	json := regexp.MustCompile(`^{"seq":(\d+),"time":"[^"]+","ops":(.*)}$`)
	bee := func(want string) {
		t.Helper()
		select {
		case got := <-bees:
			if short := json.ReplaceAllString(got, "$1 $2"); short != want {
				t.Fatalf("watch prints %s, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("watch does not print %s within 30s", want)
		}
	}
	bee(`3 [{"op":"Set","key":"b\t","value":"2\n"}]`)

	// the leader dies; the watchers go on
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wantWith(t, "\xff", 0, "", "", "put", dir, "b", "-")
	select {
	case got := <-all:
		if !regexp.MustCompile(`^\d+\tSet\tb\t\\xff$`).MatchString(got) {
			t.Fatalf("watch prints %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("watch does not print what a new leader committed within 30s")
	}
	select {
	case got := <-bees:
		if short := json.ReplaceAllString(got, "$2"); short != `[{"op":"Set","key":"b","value64":"/w=="}]` {
			t.Fatalf("watch prints %s", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("watch does not print a value that is not UTF-8 within 30s")
	}
	want(t, 1, "", "truncated", "watch", dir, "--from=99999999")
	want(t, 1, "", "no such directory", "watch", filepath.Join(dir, "absent"))
}

// Two processes have one name: the first gets the events, and when it is killed
// the second goes on where that stopped.
func TestDemo_WatchWithAName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	hold(t, dir)
	put := func(key string) {
		t.Helper()
		want(t, 0, "", "", "put", dir, key, "v")
	}
	see := func(lines <-chan string) string {
		t.Helper()
		select {
		case line, ok := <-lines:
			_, op, tab := strings.Cut(line, "\t")
			if !ok || !tab {
				t.Fatalf("watch prints %q (%t)", line, ok)
			}
			return op
		case <-time.After(30 * time.Second):
			t.Fatal("watch prints nothing within 30s")
			return ""
		}
	}
	sees := func(lines <-chan string, want string) {
		t.Helper()
		if got := see(lines); got != want {
			t.Fatalf("watch prints %q, want %q", got, want)
		}
	}
	followers := func(want int) {
		t.Helper()
		late := time.Now().Add(30 * time.Second)
		var st struct{ Followers int }
		for st.Followers != want+1 { // with the one that asks
			if time.Now().After(late) {
				t.Fatalf("%d processes follow, want %d", st.Followers-1, want)
			}
			_, out, errs := run(t, "", "status", dir, "--json")
			if err := json.Unmarshal([]byte(out), &st); err != nil {
				t.Fatal(err, errs)
			}
		}
	}

	put("before")
	first, _, kill := watcher(t, dir, "--from=1", "--name=worker")
	sees(first, "Set\tbefore\tv")
	second, interrupt := watch(t, dir, "--from=1", "--name=worker")
	followers(2) // it is there, and waits
	put("one")
	sees(first, "Set\tone\tv")
	kill()
	put("two")
	got := see(second)
	if got == "Set\tone\tv" { // killed before it was acknowledged
		got = see(second)
	}
	if got != "Set\ttwo\tv" {
		t.Fatalf("the second watch begins with %q", got)
	}
	third, interruptThird := watch(t, dir, "--name=worker")
	followers(2)
	interruptThird() // while it waits
	put("three")
	sees(second, "Set\tthree\tv")
	interrupt()
	for line := range third {
		t.Errorf("the third watch printed %q", line)
	}
	for line := range first {
		t.Errorf("the first watch printed %q as well", line)
	}
}

func TestDemo_Log(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	for _, kv := range []string{"a", "b", "c"} {
		want(t, 0, "", "", "put", dir, kv, "v")
	}
	masked := regexp.MustCompile(`\t20[^\t]*Z\t(begins the term|[0-9a-f]{32})\n`)
	check := func(code int, wanted string, args ...string) {
		t.Helper()
		got, out, errs := run(t, "", append([]string{"log", dir}, args...)...)
		out = masked.ReplaceAllString(out, "\n")
		if got != code || out != wanted || (code == 0) != (errs == "") {
			t.Errorf("log %v: exit code %d, %q, %q; want %d, %q", args, got, out, errs, code, wanted)
		}
	}
	all := "1\tterm 1\n2\tterm 1\n\tSet\ta\tv\n3\tterm 2\n4\tterm 2\n\tSet\tb\tv\n5\tterm 3\n6\tterm 3\n\tSet\tc\tv\n"
	check(0, all)
	check(0, "4\tterm 2\n\tSet\tb\tv\n5\tterm 3\n", "--from=4", "--to=5")
	check(0, "", "--from=7")
	hold(t, dir)
	check(0, all+"7\tterm 4\n") // while somebody leads

	damaged := filepath.Join(t.TempDir(), "damaged")
	names, err := filepath.Glob(filepath.Join(dir, "party", "log", "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("b\x01v"))]++ // the entry of b
	write(t, filepath.Join(damaged, "party", "log", filepath.Base(names[0])), string(b))
	dir = damaged
	check(1, "1\tterm 1\n2\tterm 1\n\tSet\ta\tv\n3\tterm 2\n")
	want(t, 1, "", "no such file", "log", filepath.Join(damaged, "absent"))
	want(t, 2, "", "--to", "log", dir, "--from=3", "--to=2")
}
