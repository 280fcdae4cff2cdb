package snapshot

// Pairs is Page for a reader in the same process: it appends the pairs of the next
// page to dst and what they consist of to buf, of limit bytes at most, or one pair
// that is larger by itself. Their slices point into buf, or into what it was before
// it grew; buf is not to be used again while they are. It does not go on with a
// pair of which Page has given a part.
func (c *Cursor) Pairs(dst []Pair, buf []byte, limit int) (_ []Pair, _ []byte, end End, err error) {
	if cap(buf) == 0 {
		buf = make([]byte, 0, limit) // an empty value is not nil, even where nothing else is
	}
	for c.ok {
		p := Pair{Key: c.it.Key()}
		if !c.keysOnly {
			if p.Value, err = c.it.ValueAndErr(); err != nil {
				return dst, buf, 0, err
			}
		}
		if len(buf) > 0 && len(buf)+len(p.Key)+len(p.Value) > limit {
			return dst, buf, More, nil
		}
		start := len(buf)
		buf = append(buf, p.Key...)
		mid := len(buf)
		p.Key = buf[start:mid:mid]
		if !c.keysOnly {
			buf = append(buf, p.Value...)
			// Behind append, which may have moved buf: the key stays where it was.
			p.Value = buf[mid:len(buf):len(buf)]
		}
		dst = append(dst, p)
		c.next()
	}
	return dst, buf, Last, c.it.Error()
}
