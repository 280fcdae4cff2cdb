package chaos_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// whole makes a directory that has all that may be there, and the paths besides; those
// that end with a slash are folders.
func whole(t *testing.T, besides ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Concat([]string{
		"LOCK", "MANIFEST-000042", "OPTIONS-000053", "marker.manifest.000009.MANIFEST-000051", "000049.sst", "000052.log",
		"party/leader.lock", "party/commit", "party/memory", "party/log/00000000000000000001.log", "party/cursors/0123456789abcdef.lock", "party/replicas/",
	}, besides) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFiles_Judge(t *testing.T) {
	for _, tc := range []struct{ name, file, files, swept string }{
		{"nothing", "", "", ""},
		{"a socket", "party/nats.sock", "party/nats.sock", "party/nats.sock"},
		{"an endpoint", "party/endpoint", "party/endpoint", "party/endpoint"},
		{"a file of the log that is none", "party/log/1.log", "party/log/1.log", "party/log/1.log"},
		{"a folder of the log", "party/log/deep/1", "party/log/deep", "party/log/deep"},
		{"a table that is none", "000007.sst.new", "000007.sst.new", "000007.sst.new"},
		{"a folder", "checkpoint/", "checkpoint", "checkpoint"},
		{"a replica of a killed process", "party/replicas/00ff/1/000001.sst", "", "party/replicas/00ff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := whole(t)
			if tc.file != "" {
				dir = whole(t, tc.file)
			}
			v, replicas := chaos.JudgeFiles(dir, 1)
			expect(t, v, tc.files)
			expect(t, chaos.JudgeSwept(dir, replicas), tc.swept)
			if len(replicas) > 0 {
				v, _ = chaos.JudgeFiles(dir, 0) // nobody was killed
				expect(t, v, tc.swept)
			}
		})
	}
}

func TestLeaks_Judge(t *testing.T) {
	three := `{"t":"l","at":1}` + "\n" + `{"t":"l","at":1}` + "\n" + `{"t":"f","at":1}` + "\n"
	for _, tc := range []struct {
		name, record string
		ended        int
		want         string
	}{
		{"all looked", three, 3, ""},
		{"one that was killed had looked", three, 2, ""},
		{"one did not look", three, 4, "4 processes closed and ended, and 3 looked"},
		{"a leak", `{"t":"k","at":1,"s":"goroutine 7"}` + "\n" + three, 3, "process 0 has closed: goroutine 7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := chaos.JudgeLeaks([]byte(tc.record), tc.ended)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, v, tc.want)
		})
	}
}
