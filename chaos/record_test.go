package chaos_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pebbleparty/pebbleparty/chaos"
)

const aRecord = `{"t":"b","at":5,"n":1,"w":"registers","l":"registers-0-0-0","o":"set","k":"k","s":"v","wr":true}
{"t":"n","at":6,"w":"lists","s":"3 set:x"}
{"t":"e","at":9,"n":1}
{"t":"b","at":10,"n":2,"w":"registers","l":"registers-0-0-0","o":"get","k":"k"}
`

// What a killed process has written up to its last whole line counts.
func TestRecord_TornLastLine(t *testing.T) {
	for cut := range len(aRecord) + 1 {
		calls, err := chaos.DecodeRecord([]byte(aRecord[:cut]))
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if cut == len(aRecord) && (len(calls) != 2 || !calls[0].OK() || calls[1].Answered()) {
			t.Errorf("calls %+v", calls)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(aRecord))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"t":"e","at":1,"n":7}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		calls, err := chaos.DecodeRecord(b)
		if err == nil {
			for _, c := range calls {
				if c.OK() && !c.Answered() {
					t.Errorf("%+v", c)
				}
			}
		}
	})
}

// The garbage stays away from what may be the last frame.
func TestTearTail_LeavesFramesAlone(t *testing.T) {
	dir := t.TempDir()
	old, path := filepath.Join(dir, "00000000000000000001.log"), filepath.Join(dir, "00000000000000000009.log")
	content := make([]byte, 4096)
	for i := range 200 {
		content[i] = 'x'
	}
	for _, p := range []string{old, path} {
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if note, err := chaos.TearTail(dir, 0.5); err != nil {
		t.Fatal(note, err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got[:264]) != string(content[:264]) || got[264] == 0 {
		t.Errorf("the garbage does not begin at 264")
	}
	if got, err := os.ReadFile(old); err != nil || string(got) != string(content) {
		t.Errorf("a segment that is not the last was changed (%v)", err)
	}
}
