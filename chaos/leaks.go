package chaos

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// footprint is what a process has open.
type footprint struct {
	goroutines map[string]string // their stacks, by their ids
	files      map[string]int    // what descriptors and mappings are of, and how many; nil where that cannot be known
}

// takeFootprint says what the process has now, without the goroutine that asks.
func takeFootprint() footprint {
	// The first use of a pipe or socket makes the runtime's own descriptors.
	if r, w, err := os.Pipe(); err == nil {
		_, _ = r.Close(), w.Close()
	}
	f := footprint{goroutines: map[string]string{}, files: openFiles()}
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	// The first stack is the caller's.
	for _, stack := range bytes.Split(buf, []byte("\n\n"))[1:] {
		id, _, _ := strings.Cut(string(stack), " [")
		f.goroutines[id] = string(stack)
	}
	return f
}

// beyond returns what f has more than before.
func (f footprint) beyond(before footprint) (more []string) {
	for _, id := range slices.Sorted(maps.Keys(f.goroutines)) {
		if _, was := before.goroutines[id]; !was {
			more = append(more, f.goroutines[id])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		if n := f.files[name] - before.files[name]; n > 0 {
			more = append(more, fmt.Sprintf("open %d times: %s", n, name))
		}
	}
	return more
}

// holdings are what a process has in the file system that goes with its handle:
// the folders of its replicas, as far as its descriptors tell. It has the lock of
// such a folder and files beside it. A leader has files in the folder of another
// process while it makes a checkpoint there, and the lock as it sweeps; not both.
func (f footprint) holdings(dir string) (folders []string) {
	root := filepath.Join(dir, "party", "replicas") + string(filepath.Separator)
	locked, used := map[string]bool{}, map[string]bool{}
	for name := range f.files {
		rest, ok := strings.CutPrefix(name, root)
		if !ok {
			continue
		}
		id, file, _ := strings.Cut(rest, string(filepath.Separator))
		if file == "lock" {
			locked[root+id] = true
		} else {
			used[root+id] = true
		}
	}
	for folder := range locked {
		if used[folder] {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders)
	return folders
}

// leaks returns what a process that has closed its handles has more than before it
// opened one, and which of the folders that went with them are still there. It may
// still be there for the time patience: a goroutine that has done its last send
// needs the processor once more to end.
func leaks(before footprint, folders []string, patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		runtime.GC() // a mapping lasts until the garbage collection after the end of its use
		more := takeFootprint().beyond(before)
		for _, folder := range folders {
			if entries, err := os.ReadDir(folder); err == nil {
				more = append(more, fmt.Sprintf("its replica is still there: %s %v", folder, entries))
			}
		}
		if len(more) == 0 || time.Now().After(deadline) {
			return more
		}
		<-look.C
	}
}

// judgeLeaks looks at what the processes said when they had closed, ended of them
// cleanly.
func judgeLeaks(h *history, ended int) Verdict {
	v := Verdict{Name: "leaks"}
	for _, text := range h.leaks {
		v.violate(text)
	}
	if h.looked+h.fenced < ended {
		v.violate(fmt.Sprintf("%d processes closed and ended, and %d looked for what they have left", ended, h.looked+h.fenced))
	}
	v.Detail = fmt.Sprintf("%d processes closed, and had no goroutine, descriptor, mapping or replica more than before they opened", h.looked)
	if h.fenced > 0 {
		v.Detail += fmt.Sprintf("; %d had to give up a Pebble that met an error of the disk, and were not looked at", h.fenced)
	}
	return v
}
