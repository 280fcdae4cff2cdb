package party

import (
	"bytes"
	"fmt"
)

// A call that reads may be answered in several replies: values that found no room
// in one are asked for again. missing are the keys without an answer then.

// asks returns how many keys a call has still to ask for.
func (c *call) asks() int {
	if c.values == nil {
		return len(c.keys)
	}
	return len(c.missing)
}

// index returns which key the i-th of them is.
func (c *call) index(i int) int {
	if c.values == nil {
		return i
	}
	return c.missing[i]
}

// fill hands what a reply of so many bytes says to the calls of its bundle.
func fill(bundle []*call, values []value, reply int) error {
	all := make([][]byte, len(values))
	for _, c := range bundle {
		n := c.asks()
		if len(values) < n {
			return fmt.Errorf("%w: too few values", errWire)
		}
		c.fill(values[:n], all[:n:n], reply)
		values, all = values[n:], all[n:]
	}
	return nil
}

// fill takes the values of the keys that were asked for; room is for as many.
func (c *call) fill(values []value, room [][]byte, reply int) {
	first := c.values == nil
	if first {
		c.values = room
	}
	missing := c.missing[:0] // behind what is read of it
	for i, v := range values {
		k := i
		if !first {
			k = c.missing[i]
		}
		switch v.mark {
		case valuePresent:
			c.values[k] = keep(v.bytes, reply)
		case valueError:
			c.err, c.again = v.err, false
			return
		case valueLarge, valueLater:
			c.large = c.large || v.mark == valueLarge
			missing = append(missing, k)
		}
	}
	c.missing = missing
	c.again = len(missing) > 0
}

// keep returns a value that points into a reply of so many bytes, or a copy where
// whoever keeps it would keep much more than it with it.
func keep(v []byte, reply int) []byte {
	if reply <= largeValue || len(v) > reply/2 {
		return v[:len(v):len(v)]
	}
	return bytes.Clone(v)
}
