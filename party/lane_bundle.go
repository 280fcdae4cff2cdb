package party

// Bounds of one bundle. One call may be larger by itself.
const (
	bundleBytes = 1 << 20
	bundleCalls = 1024
)

// pack takes the next bundle off the queue. mu is held.
func (l *lane) pack() []*call {
	if l.larges {
		return l.packMixed()
	}
	n, bytes := 0, 0
	for n < len(l.queue) && n < bundleCalls && (n == 0 || bytes+l.queue[n].size <= bundleBytes) {
		bytes += l.queue[n].size
		n++
	}
	bundle := l.queue[:n:n]
	l.queue = l.queue[n:]
	if len(l.queue) == 0 {
		l.queue = nil // the bundle keeps the array
	}
	return bundle
}

// packMixed is pack while there are calls for large values: it takes one of them
// at a time, past which the others go. mu is held.
func (l *lane) packMixed() []*call {
	var bundle, rest []*call
	large, bytes := 0, 0
	for _, c := range l.queue {
		fits := len(bundle) < bundleCalls && (len(bundle) == 0 || bytes+c.size <= bundleBytes)
		if c.large {
			large++
		}
		if !fits || c.large && large > 1 {
			rest = append(rest, c)
			continue
		}
		bytes += c.size
		bundle = append(bundle, c)
	}
	l.queue, l.larges = rest, large > 1
	return bundle
}

// requeue puts calls of a bundle back to the front of the queue: those whose route was
// lost, or reads that were not answered to the end. mu is held.
func (l *lane) requeue(bundle []*call, lost bool) {
	if len(bundle) == 0 {
		return
	}
	front := make([]*call, 0, len(bundle)+len(l.queue))
	for _, c := range bundle {
		switch {
		case c.gone:
		case l.closed != nil:
			c.fail(l.closed)
		case lost && l.noRetry:
			c.fail(ErrLeaderLost)
		default:
			if lost && c.cmd != nil {
				c.cmd.Retry = true
			}
			c.err, c.again = nil, false
			l.larges = l.larges || c.large
			front = append(front, c)
		}
	}
	l.queue = append(front, l.queue...)
}
