package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/apply"
)

// Request asks for one page of keys.
type Request struct {
	Lower, Upper []byte // bounds as in pebble.IterOptions; nil: none
	From         []byte // where the page begins; nil: at the end it comes from
	Reverse      bool   // descending, from keys less than From
	After        bool   // ascending: without From itself
	KeysOnly     bool
	Bytes        int // the page ends once it holds so many; one pair always fits
}

const (
	flagReverse = 1 << iota
	flagAfter
	flagKeysOnly
	flagLower
	flagUpper
	flagFrom
	flagsKnown = flagReverse | flagAfter | flagKeysOnly | flagLower | flagUpper | flagFrom
)

// Append appends the wire form of r to dst.
func (r *Request) Append(dst []byte) []byte {
	var flags byte
	for _, f := range []struct {
		on  bool
		bit byte
	}{
		{r.Reverse, flagReverse}, {r.After, flagAfter}, {r.KeysOnly, flagKeysOnly},
		{r.Lower != nil, flagLower}, {r.Upper != nil, flagUpper}, {r.From != nil, flagFrom},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(r.Bytes))
	for _, b := range [][]byte{r.Lower, r.Upper, r.From} {
		if b != nil {
			dst = appendBytes(dst, b)
		}
	}
	return dst
}

// ErrMalformed: the bytes are no encoded request or page.
var ErrMalformed = errors.New("snapshot: malformed")

// maxPage bounds what a request may ask for at once, in bytes.
const maxPage = 16 << 20

// Decode sets r from its wire form; its slices point into src.
func (r *Request) Decode(src []byte) error {
	if len(src) == 0 || src[0]&^flagsKnown != 0 {
		return fmt.Errorf("%w: page request", ErrMalformed)
	}
	flags := src[0]
	size, n := binary.Uvarint(src[1:])
	if n <= 0 {
		return fmt.Errorf("%w: page request", ErrMalformed)
	}
	*r = Request{
		Reverse:  flags&flagReverse != 0,
		After:    flags&flagAfter != 0,
		KeysOnly: flags&flagKeysOnly != 0,
		Bytes:    int(min(size, maxPage)),
	}
	rest, ok := src[1+n:], true
	for _, f := range []struct {
		bit byte
		dst *[]byte
	}{{flagLower, &r.Lower}, {flagUpper, &r.Upper}, {flagFrom, &r.From}} {
		if flags&f.bit == 0 {
			continue
		}
		if *f.dst, rest, ok = takeBytes(rest); !ok {
			return fmt.Errorf("%w: page request", ErrMalformed)
		}
	}
	return nil
}

// Source is what pages are read from: a Pebble database or snapshot.
type Source interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// Read appends a page to dst: a byte that is 1 if the page is the last in its
// direction, then key and value (unless KeysOnly) of each pair, each after its
// length as a uvarint. cmp is the comparer of the database.
func (r *Request) Read(dst []byte, from Source, cmp *pebble.Comparer) (_ []byte, err error) {
	for _, key := range [][]byte{r.Lower, r.Upper, r.From} {
		// Comparers may panic with keys they do not know, and this one may come
		// from another process.
		if err := cmp.ValidateKey.Validate(key); key != nil && err != nil {
			return nil, fmt.Errorf("%w: page request: %w", ErrMalformed, err)
		}
	}
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: r.Lower, UpperBound: r.Upper})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	start := len(dst)
	dst = append(dst, 1)
	w := walker{it: it, reverse: r.Reverse, bytewise: cmp.Name == pebble.DefaultComparer.Name}
	ok := w.start(r.From)
	if ok && r.After && r.From != nil && cmp.Equal(it.Key(), r.From) {
		ok = w.next()
	}
	for ; ok; ok = w.next() {
		if len(dst)-start-1 >= max(r.Bytes, 1) {
			dst[start] = 0
			break
		}
		dst = appendBytes(dst, it.Key())
		if r.KeysOnly {
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		dst = appendBytes(dst, v)
	}
	return dst, it.Error()
}

// walker moves an iterator in one direction, over reserved keys.
type walker struct {
	it       *pebble.Iterator
	reverse  bool
	bytewise bool // reserved keys stand together
}

func (w *walker) start(from []byte) bool {
	var ok bool
	switch {
	case w.reverse && from == nil:
		ok = w.it.Last()
	case w.reverse:
		ok = w.it.SeekLT(from)
	case from == nil:
		ok = w.it.First()
	default:
		ok = w.it.SeekGE(from)
	}
	return w.skip(ok)
}

func (w *walker) next() bool { return w.skip(w.step()) }

func (w *walker) step() bool {
	if w.reverse {
		return w.it.Prev()
	}
	return w.it.Next()
}

// skip passes over reserved keys.
func (w *walker) skip(ok bool) bool {
	for ok && apply.IsReserved(w.it.Key()) {
		switch {
		case !w.bytewise:
			ok = w.step()
		case w.reverse:
			ok = w.it.SeekLT([]byte(apply.ReservedPrefix))
		default:
			ok = w.it.SeekGE(reservedEnd)
		}
	}
	return ok
}

// reservedEnd is the first key behind the reserved ones in byte order.
var reservedEnd = func() []byte {
	b := []byte(apply.ReservedPrefix)
	b[len(b)-1]++
	return b
}()

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// DecodePage reads what Read wrote. The slices point into src.
func DecodePage(src []byte, keysOnly bool) (pairs []Pair, last bool, err error) {
	if len(src) == 0 || src[0] > 1 {
		return nil, false, fmt.Errorf("%w: page", ErrMalformed)
	}
	last = src[0] == 1
	src = src[1:]
	for len(src) > 0 {
		var p Pair
		var ok bool
		p.Key, src, ok = takeBytes(src)
		if ok && !keysOnly {
			p.Value, src, ok = takeBytes(src)
		}
		if !ok {
			return nil, false, fmt.Errorf("%w: page", ErrMalformed)
		}
		pairs = append(pairs, p)
	}
	if len(pairs) == 0 && !last {
		return nil, false, fmt.Errorf("%w: an empty page that is not the last", ErrMalformed)
	}
	return pairs, last, nil
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
