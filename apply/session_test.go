package apply

import (
	"bytes"
	"slices"
	"testing"
)

// Internal: the stored form of a session has no use outside.

func FuzzDecodeSession(f *testing.F) {
	s := &session{}
	f.Add(s.append(nil, Origin{1}))
	for i := range uint64(9) {
		s.record(i+1, i/2, 10*i+i%3)
	}
	s.born = 300
	f.Add(s.append(nil, Origin{2}))
	f.Add(make([]byte, 15))
	f.Fuzz(func(t *testing.T, src []byte) {
		o, s, err := decodeSession(src)
		if err != nil {
			return
		}
		o2, s2, err := decodeSession(s.append(nil, o))
		if err != nil || o2 != o || s2.low != s.low || s2.last != s.last || s2.born != s.born || !slices.Equal(s2.runs, s.runs) {
			t.Fatalf("%+v became %+v, %v", s, s2, err)
		}
	})
}

func TestSession_FindsWhatIsOpen(t *testing.T) {
	s := &session{}
	for _, x := range []struct{ number, low, seq uint64 }{{1, 1, 10}, {2, 1, 11}, {4, 1, 12}, {3, 1, 20}, {5, 3, 21}, {6, 3, 22}} {
		s.record(x.number, x.low, x.seq)
	}
	for number, want := range map[uint64]uint64{1: 0, 2: 0, 3: 20, 4: 12, 5: 21, 6: 22, 7: 0} {
		if seq, _ := s.find(number); seq != want {
			t.Errorf("number %d: found %d, want %d", number, seq, want)
		}
	}
	_, loaded, err := decodeSession(s.append(nil, Origin{}))
	if err != nil || !bytes.Equal(loaded.append(nil, Origin{}), s.append(nil, Origin{})) {
		t.Fatal(err)
	}
}
