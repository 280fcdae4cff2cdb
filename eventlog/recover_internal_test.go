package eventlog

import "testing"

func TestAllZero(t *testing.T) {
	for n := range 40 {
		b := make([]byte, n)
		if !allZero(b) {
			t.Errorf("%d zeros", n)
		}
		for i := range b {
			b[i] = 1
			if allZero(b) {
				t.Errorf("%d bytes, not zero at %d", n, i)
			}
			b[i] = 0
		}
	}
}

// What may not be durable is written again, so a walk must not begin behind it.
func TestPosition_OnlyBehindWhatIsDurable(t *testing.T) {
	s := &segment{header: header{first: 1}, size: 1 << 16}
	start := mark{startChain(&s.header), headerSize}
	p := Position{Segment: 1, Offset: 4096, Last: 7, Term: 1, Limit: 9}
	if m := p.in(s, 7, start); m != (mark{chain{last: 7, term: 1, limit: 9}, 4096}) {
		t.Errorf("durable: %+v", m)
	}
	if m := p.in(s, 6, start); m != start {
		t.Errorf("not all durable: %+v", m)
	}
}
