package eventlog

import (
	"bytes"
	"testing"
)

// FuzzFrame decodes arbitrary bytes; what is valid must encode to the same again.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 7, KindEntry, 5, 4, []byte("payload")), uint32(7))
	f.Add(appendFrame(nil, 7, KindEntry, 5, 0, nil), uint32(7))
	f.Add(appendTermFrame(nil, 1, 9, 4, 2, 4, 99), uint32(1))
	f.Add(appendReserveFrame(nil, 1, 9, 9, 10), uint32(1))
	f.Add(make([]byte, 64), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, seed uint32) {
		var fr frame
		switch decodeFrame(b, seed, &fr) {
		case frameShort:
			if fr.size <= int64(len(b)) && len(b) >= frameHeader {
				t.Fatalf("needs %d bytes, has %d", fr.size, len(b))
			}
		case frameValid:
			again := appendFrame(nil, seed, fr.kind, fr.seq, fr.synced, fr.payload)
			if int64(len(again)) != fr.size || !bytes.Equal(again[:frameHeader+len(fr.payload)], b[:frameHeader+len(fr.payload)]) {
				t.Fatalf("%v encodes to %v", b, again)
			}
		}
		findProof(b, seed, 1)
		if end := lastNonZero(b, 0); !allZero(b[end:]) || end > 0 && b[end-1] == 0 {
			t.Fatalf("%v ends at %d", b, end)
		}
	})
}

// A proof must be found wherever it stands, also behind and across whole blocks of zeros.
func TestFindProof_AtEveryOffset(t *testing.T) {
	fr := appendFrame(nil, 3, KindEntry, 9, 8, []byte("x\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	for at := 8; at < 13000; at += 8 {
		b := make([]byte, at+len(fr)+at%4096)
		copy(b[at:], fr)
		if findProof(b, 3, 8) != int64(at) {
			t.Fatalf("not found at %d", at)
		}
		if findProof(b, 3, 9) != 0 || findProof(b, 4, 8) != 0 {
			t.Fatalf("found at %d what proves nothing", at)
		}
	}
}
