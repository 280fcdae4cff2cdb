package eventlog

// Size returns the bytes of all segment files, the zeros ahead of the end included.
func (l *Log) Size() int64 {
	l.retainMu.Lock()
	defer l.retainMu.Unlock()
	if _, err := l.readHeaders(); err != nil {
		panic(err)
	}
	l.segMu.Lock()
	defer l.segMu.Unlock()
	var n int64
	for i := range l.segs {
		n += l.segs[i].size
	}
	return n
}
