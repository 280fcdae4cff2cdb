package party

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/pebbleparty/pebbleparty/eventlog"
)

// What Pebble has not made durable the next leader has to read before it can serve
// writes, and to replay before it can serve reads. So Pebble flushes when flushBytes
// of log have piled up, and every flushEvery when there are flushSome: that keeps it
// to some thousand entries under a moderate load, and costs an idle leader nothing.
const (
	flushBytes = 2 << 20
	flushSome  = 64 << 10
	flushEvery = 250 * time.Millisecond
)

const (
	// keepEvery is how often retention by age is looked at.
	keepEvery = time.Minute
	// visibleEvery is how often the leader looks whether others can find it: for so
	// long a process that opens may have to wait after somebody removed a file.
	visibleEvery = time.Second
)

// keep does the leader's housekeeping until the term ends: it has Pebble flush
// when much is unflushed, removes what retention lets go, and forgets transfers
// that nobody comes for.
func (l *leader) keep() {
	o := l.db.opts.Retention
	retention := eventlog.Retention{MaxBytes: o.MaxBytes, MaxAge: o.MaxAge, HoldBytes: o.CursorBytes}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	look := time.NewTicker(visibleEvery)
	defer look.Stop()
	sweep := time.NewTicker(transferIdle)
	defer sweep.Stop()
	unflushed := 0
	var due <-chan time.Time // running while there is something to flush
	flushNow := false
	for {
		if flushNow || unflushed >= flushBytes {
			flushNow = false
			begun, err := l.machine.FlushSoon()
			switch {
			case err != nil:
				l.db.log.Warn("party: flush", "err", err)
				fallthrough
			case begun:
				unflushed, due = 0, nil
			case due == nil: // the last one is still under way, without what came since
				due = time.After(flushEvery)
			}
		}
		select {
		case <-l.ctx.Done():
			return
		case n := <-l.grew:
			if unflushed += n; unflushed >= flushSome && due == nil {
				due = time.After(flushEvery)
			}
		case <-due:
			flushNow, due = true, nil
		case now := <-sweep.C:
			l.desk.transfers.sweep(now)
		case <-l.machine.Flushed():
			l.notifier.note()
			l.retain(retention)
		case <-tick.C:
			l.retain(retention)
		case <-look.C:
			l.stayVisible()
		}
	}
}

// stayVisible sees to it that others find this leader although somebody has removed what they find it by.
func (l *leader) stayVisible() {
	if l.ctx.Err() != nil {
		return // a keeper that comes back late; the files may be another leader's by now
	}
	if name, ok := strings.CutPrefix(string(l.address), "unix:"); ok {
		if _, err := os.Stat(l.db.path(name)); errors.Is(err, os.ErrNotExist) {
			l.cancel(fmt.Errorf("the socket %s was removed", l.db.path(name)))
			return
		}
	}
	if _, err := os.Stat(l.db.path("endpoint")); errors.Is(err, os.ErrNotExist) {
		if err := l.published.publish(l.db.path("endpoint")); err != nil {
			l.db.log.Warn("party: publish the endpoint again", "err", err)
		}
	}
}

func (l *leader) retain(r eventlog.Retention) {
	durable, err := l.machine.Durable()
	if r.HoldBytes > 0 {
		r.Hold = math.MaxUint64
		for _, c := range l.machine.Cursors() {
			r.Hold = min(r.Hold, c.Seq)
		}
	}
	if err == nil {
		err = l.log.Retain(r, l.holds.keep(durable, time.Now()))
	}
	if err != nil {
		l.db.log.Warn("party: remove old log", "err", err)
	}
}

// appended tells the keeper how much the log grew. It never blocks: what finds
// the channel taken is added to what is there.
func (l *leader) appended(bytes int) {
	select {
	case n := <-l.grew:
		bytes += n
	default:
	}
	select {
	case l.grew <- bytes:
	default: // cannot be: only the sequencer sends, and it has just emptied it
	}
}
