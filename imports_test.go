package pebbleparty_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pebbleparty/pebbleparty"

// may says which packages of ours each package of ours imports at most. It is
// the drawing in docs/architecture.md.
var may = map[string][]string{
	"":                     {},
	"internal/mutant":      {},
	"internal/nospace":     {},
	"eventlog":             {"internal/mutant", "internal/nospace"},
	"embednats":            {},
	"apply":                {"eventlog", "internal/mutant", "internal/nospace"},
	"snapshot":             {"apply", "eventlog", "internal/mutant"},
	"party":                {"embednats", "snapshot", "apply", "eventlog", "internal/mutant", "internal/nospace"},
	"chaos":                {"party"},
	"cmd/demo":             {"party", "chaos"},
	"examples/searchindex": {"party"},
}

// homes says which packages of ours import an outside library, given by the
// beginning of its path. Tests may import it where the package may, and party's
// may measure against it.
var homes = map[string][]string{
	"github.com/nats-io/nats-server/": {"embednats"},
	"github.com/nats-io/nats.go":      {"embednats", "party"},
	"github.com/anishathalye/":        {"chaos"},
	"github.com/chromedp/":            {"chaos"}, // its tests look at the report in a browser
	// eventlog has it for vfs, on which its tests and Pebble's stand.
	"github.com/cockroachdb/pebble/": {"internal/nospace", "eventlog", "apply", "snapshot", "party", "chaos", "cmd/demo", "examples/searchindex"},
}

// never says what a package must not even reach through others, in addition.
var never = map[string][]string{
	"eventlog":  {"github.com/nats-io/"},
	"apply":     {"github.com/nats-io/"},
	"snapshot":  {"github.com/nats-io/"},
	"embednats": {"github.com/cockroachdb/pebble/"},
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

func TestImports_PointDown(t *testing.T) {
	for _, goos := range []string{"linux", "windows", "darwin", "freebsd"} {
		t.Run(goos, func(t *testing.T) {
			packages := list(t, goos)
			if len(packages) < 5 {
				t.Fatalf("go list found %d packages only", len(packages))
			}
			for _, p := range packages {
				check(t, p)
			}
		})
	}
}

func check(t *testing.T, p listed) {
	name := ours(p.ImportPath)
	allowed, known := may[name]
	if !known {
		t.Errorf("package %s is not in the drawing: add it to docs/architecture.md and to this test", name)
		return
	}
	inTests := slices.Concat(p.TestImports, p.XTestImports)
	for _, path := range slices.Concat(p.Imports, inTests) {
		if isOurs(path) {
			if to := ours(path); to != name && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s", name, to)
			}
		}
	}
	for library, at := range homes {
		imports := p.Imports
		if name != "party" {
			imports = slices.Concat(imports, inTests)
		}
		for _, path := range imports {
			if strings.HasPrefix(path+"/", library) && !slices.Contains(at, name) {
				t.Errorf("%s imports %s, whose home is %s", name, path, strings.Join(at, ", "))
			}
		}
	}
	for _, path := range p.Deps {
		for _, library := range never[name] {
			if strings.HasPrefix(path+"/", library) {
				t.Errorf("%s depends on %s", name, path)
			}
		}
	}
}

func isOurs(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// ours is the path of a package of ours below the root.
func ours(path string) string { return strings.Trim(strings.TrimPrefix(path, module), "/") }

// list returns what go list says about our packages on goos. It needs no
// compiler for that system, and -e keeps to what can be read without one.
func list(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []listed
	for in := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// The benchmarks' drivers stay out of our go.mod.
func TestModule_BenchmarksAreApart(t *testing.T) {
	if _, err := os.Stat("bench"); errors.Is(err, os.ErrNotExist) {
		return
	}
	if _, err := os.Stat("bench/go.mod"); err != nil {
		t.Errorf("bench is not a module of its own: %v", err)
	}
}
