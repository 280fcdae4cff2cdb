package snapshot

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// Cursor reads pages of one point in time.
type Cursor struct {
	it       *Iter
	keysOnly bool
	reverse  bool // of the walk
	ok       bool // it stands on the next pair to be read

	// A pair too large for a page is read in parts: head, then value, of which so
	// many bytes have been read. value is Pebble's, until it moves.
	head  []byte
	value []byte
	read  int
	split bool // in the middle of such a pair
}

// NewCursor opens a cursor that sees from as it is now, as NewIter does. It stands
// nowhere: begin with Seek. The caller must Close it before from is closed.
func NewCursor(from Source, b Bounds, cmp *pebble.Comparer) (*Cursor, error) {
	it, err := NewIter(from, b, cmp)
	if err != nil {
		return nil, err
	}
	return &Cursor{it: it, keysOnly: b.KeysOnly}, nil
}

// Close frees what the cursor holds and returns the error that it met, if any.
func (c *Cursor) Close() error { return c.it.Close() }

// Seek begins a walk: the next page begins at p.
func (c *Cursor) Seek(p Position) (err error) {
	c.reverse, c.split = p.Reverse, false
	c.ok, err = c.it.Seek(p)
	return err
}

func (c *Cursor) next() {
	if c.reverse {
		c.ok = c.it.Prev()
	} else {
		c.ok = c.it.Next()
	}
}

// End says how a page ends.
type End int

const (
	// More pairs are behind the page.
	More End = iota
	// Last: the page is the last one in its direction.
	Last
	// Part: the page is a part of one pair, which goes on in the next page. The
	// part that completes the pair ends with More or Last.
	Part
)

// Page appends the next page to dst: pairs of limit bytes at most, or one of up to
// whole bytes, or a part, of limit bytes at most, of one that is larger. Behind the
// last page it appends nothing.
func (c *Cursor) Page(dst []byte, limit, whole int) (_ []byte, end End, err error) {
	if c.split {
		return c.part(dst, limit)
	}
	start := len(dst)
	for c.ok {
		key := c.it.Key()
		n := sizeOf(key)
		var value []byte
		if !c.keysOnly {
			if value, err = c.it.Value(); err != nil {
				return dst, 0, err
			}
			n += sizeOf(value)
		}
		if full := len(dst)-start+n > limit; full && len(dst) > start {
			return dst, More, nil
		} else if full && n > whole {
			c.begin(key, value)
			return c.part(dst, limit)
		}
		dst = appendBytes(dst, key)
		if !c.keysOnly {
			dst = appendBytes(dst, value)
		}
		c.next()
	}
	return dst, Last, c.it.Error()
}

// begin begins to read a pair in parts.
func (c *Cursor) begin(key, value []byte) {
	c.head = appendBytes(nil, key)
	if !c.keysOnly {
		c.head = binary.AppendUvarint(c.head, uint64(len(value)))
	}
	c.value, c.read, c.split = value, 0, true
}

// part appends the next part of the pair.
func (c *Cursor) part(dst []byte, limit int) ([]byte, End, error) {
	if c.read < len(c.head) {
		n := min(limit, len(c.head)-c.read)
		dst = append(dst, c.head[c.read:c.read+n]...)
		c.read, limit = c.read+n, limit-n
	}
	if at := c.read - len(c.head); at >= 0 {
		n := min(limit, len(c.value)-at)
		dst = append(dst, c.value[at:at+n]...)
		c.read += n
	}
	if c.read < len(c.head)+len(c.value) {
		return dst, Part, nil
	}
	c.head, c.value, c.split = nil, nil, false
	c.next()
	if c.ok {
		return dst, More, nil
	}
	return dst, Last, c.it.Error()
}

// sizeOf is how many bytes b takes in a page.
func sizeOf(b []byte) int {
	n := 1
	for l := len(b); l >= 0x80; l >>= 7 {
		n++
	}
	return n + len(b)
}
