package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDemo_Chaos(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	code, out, stderr := run(t, "", "chaos", "--duration", "2s", "--every", "300ms", "--seed", "5", "--strict", "--report", report)
	if code != 0 {
		t.Fatalf("exit code %d: %s\n%s", code, stderr, out)
	}
	for _, want := range []string{"seed 5", "registers  ok", "lists      ok", "bank       ok"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	page, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(page), "<canvas") {
		t.Errorf("the report is no page (%v)", err)
	}
}
