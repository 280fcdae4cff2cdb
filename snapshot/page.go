package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed: the bytes are not what they should be the encoding of, or a key
// is none that the comparer knows.
var ErrMalformed = errors.New("snapshot: malformed")

// Bounds say what a cursor sees.
type Bounds struct {
	Lower, Upper []byte // as in pebble.IterOptions; nil: none
	KeysOnly     bool   // pages hold no values
}

// Position is where a walk begins, and its direction.
type Position struct {
	From    []byte // nil: at the end that the walk comes from
	Reverse bool   // descending, from the last key that is less than From
	After   bool   // ascending: not with From itself
}

const (
	boundLower = 1 << iota
	boundUpper
	boundKeysOnly
	boundsKnown = 1<<iota - 1
)

const (
	positionFrom = 1 << iota
	positionReverse
	positionAfter
	positionsKnown = 1<<iota - 1
)

// Append appends the encoding of b to dst.
func (b *Bounds) Append(dst []byte) []byte {
	dst = append(dst, flag(b.Lower != nil, boundLower)|flag(b.Upper != nil, boundUpper)|flag(b.KeysOnly, boundKeysOnly))
	if b.Lower != nil {
		dst = appendBytes(dst, b.Lower)
	}
	if b.Upper != nil {
		dst = appendBytes(dst, b.Upper)
	}
	return dst
}

// Decode sets b from the beginning of src and returns the rest of it. The slices
// of b point into src.
func (b *Bounds) Decode(src []byte) (rest []byte, err error) {
	if len(src) == 0 || src[0]&^boundsKnown != 0 {
		return nil, fmt.Errorf("%w: bounds", ErrMalformed)
	}
	flags, rest, ok := src[0], src[1:], true
	*b = Bounds{KeysOnly: flags&boundKeysOnly != 0}
	if flags&boundLower != 0 {
		b.Lower, rest, ok = takeBytes(rest)
	}
	if ok && flags&boundUpper != 0 {
		b.Upper, rest, ok = takeBytes(rest)
	}
	if !ok {
		return nil, fmt.Errorf("%w: bounds", ErrMalformed)
	}
	return rest, nil
}

// Append appends the encoding of p to dst.
func (p *Position) Append(dst []byte) []byte {
	dst = append(dst, flag(p.From != nil, positionFrom)|flag(p.Reverse, positionReverse)|flag(p.After, positionAfter))
	if p.From != nil {
		dst = appendBytes(dst, p.From)
	}
	return dst
}

// Decode sets p from the beginning of src and returns the rest of it. From points
// into src.
func (p *Position) Decode(src []byte) (rest []byte, err error) {
	if len(src) == 0 || src[0]&^positionsKnown != 0 {
		return nil, fmt.Errorf("%w: position", ErrMalformed)
	}
	flags, rest, ok := src[0], src[1:], true
	*p = Position{Reverse: flags&positionReverse != 0, After: flags&positionAfter != 0}
	if flags&positionFrom != 0 {
		p.From, rest, ok = takeBytes(rest)
	}
	if !ok {
		return nil, fmt.Errorf("%w: position", ErrMalformed)
	}
	return rest, nil
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// DecodePage appends the pairs of a page, or of all parts of a pair put together,
// to dst. Their slices point into src.
func DecodePage(dst []Pair, src []byte, keysOnly bool) ([]Pair, error) {
	for len(src) > 0 {
		var p Pair
		var ok bool
		p.Key, src, ok = takeBytes(src)
		if ok && !keysOnly {
			p.Value, src, ok = takeBytes(src)
		}
		if !ok {
			return nil, fmt.Errorf("%w: page", ErrMalformed)
		}
		dst = append(dst, p)
	}
	return dst, nil
}

func takeBytes(src []byte) (b, rest []byte, ok bool) {
	n, w := binary.Uvarint(src)
	if w <= 0 || n > uint64(len(src)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return src[w:end:end], src[end:], true
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
