package chaos

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// lasting are the files and folders that a directory has when nobody has it open,
// as path.Match has them: what docs/format.md lists for the folder party, and
// Pebble's own.
var lasting = []string{
	"party", "party/leader.lock", "party/commit", "party/memory", "party/log", "party/log/" + digits(20) + ".log",
	"party/cursors", "party/cursors/*.lock", "party/replicas",
	"LOCK", "CURRENT", "MANIFEST-*", "OPTIONS-*", "marker.*", "*.sst", "*.blob", "*.log",
}

func digits(n int) string {
	var s string
	for range n {
		s += "[0-9]"
	}
	return s
}

// leftBehind returns what is in dir and not lasting, as paths below it. A folder
// stands for all that is in it.
func leftBehind(dir string) (left []string, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		for _, pattern := range lasting {
			// The patterns are correct, and a folder of a file's name is no file.
			if ok, _ := path.Match(pattern, name); ok && (d.IsDir() || d.Type().IsRegular()) {
				return nil
			}
		}
		left = append(left, name)
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("what was left behind: %w", err)
	}
	return left, nil
}

// replicasOf returns which of the paths are folders of replicas.
func replicasOf(left []string) (replicas []string) {
	for _, name := range left {
		if path.Dir(name) == "party/replicas" {
			replicas = append(replicas, name)
		}
	}
	return replicas
}

// judgeFiles looks at what the processes left, before anybody opens the directory
// again. Only a process that was killed may have left its replicas.
func judgeFiles(dir string, kills int) (v Verdict, replicas []string) {
	v = Verdict{Name: "files"}
	left, err := leftBehind(dir)
	if err != nil {
		v.violate(err.Error())
		return v, nil
	}
	replicas = replicasOf(left)
	for _, name := range left {
		if kills == 0 || !slices.Contains(replicas, name) {
			v.violate("left behind: " + name)
		}
	}
	v.Detail = fmt.Sprintf("no socket, no endpoint, nothing that the format does not list, but for %d replicas of killed processes", len(replicas))
	return v, replicas
}

// swept waits until the leader has removed the replicas, which it does beside
// everything else. What it has not removed is found by judgeSwept.
func swept(ctx context.Context, dir string, replicas []string) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for slices.ContainsFunc(replicas, func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name)))
		return err == nil
	}) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// judgeSwept looks at what is left when a leader has been there after all kills:
// nothing.
func judgeSwept(dir string, replicas []string) Verdict {
	v := Verdict{Name: "replicas", Detail: fmt.Sprintf("nothing is left; the next leader removed %d of killed processes", len(replicas))}
	left, err := leftBehind(dir)
	if err != nil {
		v.violate(err.Error())
	}
	for _, name := range left {
		v.violate("left behind: " + name)
	}
	return v
}
