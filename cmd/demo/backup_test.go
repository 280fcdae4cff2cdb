package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDemo_BackupRestoreVerify(t *testing.T) {
	temp := t.TempDir()
	dir, file, copied := filepath.Join(temp, "db"), filepath.Join(temp, "backup"), filepath.Join(temp, "copy")
	want(t, 0, "", "", "put", dir, "a", "1")
	code, seq, stderr := run(t, "", "backup", dir, file)
	if code != 0 || stderr != "" || strings.TrimSpace(seq) == "" {
		t.Fatalf("backup: %d, %q, %q", code, seq, stderr)
	}
	want(t, 0, "full at "+seq, "", "verify", file)
	want(t, 0, "", "", "put", dir, "b", "2")
	code, since, stderr := run(t, "", "backup", dir, "-", "--since="+strings.TrimSpace(seq))
	if code != 0 || stderr != "" {
		t.Fatalf("backup --since: %d, %q", code, stderr)
	}
	full, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, out, stderr := run(t, string(full)+since, "restore", "-", copied)
	if code != 0 || !strings.HasPrefix(out, seq) || strings.Count(out, "\n") != 2 {
		t.Fatalf("restore: %d, %q, %q", code, out, stderr)
	}
	if code, out, stderr = run(t, "", "verify", copied); code != 0 || !strings.Contains(out, "keys      2") {
		t.Errorf("verify: %d, %q, %q", code, out, stderr)
	}
	want(t, 0, "a\t1\nb\t2\n", "", "scan", copied)
	want(t, 1, "", "not empty", "restore", file, copied)
	if err := os.WriteFile(file, bytes.TrimSuffix(full, full[len(full)-1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, 1, "", "cut off", "verify", file)
	want(t, 1, "", "cut off", "restore", file, filepath.Join(temp, "other"))
	want(t, 1, "", "no such", "verify", filepath.Join(temp, "none"))
	want(t, 1, "", "no such directory", "backup", filepath.Join(temp, "none"), file)
	entries, err := os.ReadDir(temp)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}
