package chaos

import (
	"os"
	"path/filepath"
	"strings"
)

// openFiles returns what the process has descriptors and mappings of.
func openFiles() map[string]int {
	files := map[string]int{}
	const descriptors = "/proc/self/fd"
	names, err := os.ReadDir(descriptors)
	if err != nil {
		return nil // no /proc
	}
	for _, d := range names {
		// The one that the folder is read by is gone.
		if to, err := os.Readlink(filepath.Join(descriptors, d.Name())); err == nil && !strings.HasPrefix(to, "/proc/") {
			if kind, _, ok := strings.Cut(to, ":["); ok {
				to = kind // a socket or a pipe: its number says nothing
			}
			files[to]++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return files
	}
	for line := range strings.Lines(string(maps)) {
		// Programs and libraries are mapped too, as what goes on sees fit: only what can be written is ours.
		fields := strings.Fields(line)
		if len(fields) > 5 && strings.Contains(fields[1], "s") && strings.HasPrefix(fields[5], "/") {
			files["mapping of "+fields[5]]++
		}
	}
	return files
}
