package eventlog

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Retention says how much of the log to keep. The zero value keeps everything.
type Retention struct {
	// MaxBytes bounds the size of all segment files. Default: 0, no bound.
	MaxBytes int64
	// MaxAge is how old a record may grow: a segment goes when its newest record is older. Default: 0, no bound.
	MaxAge time.Duration
	// Hold is up to where readers that come back have read: MaxBytes and MaxAge leave what is behind it, as long as that
	// keeps no more than HoldBytes. Default: no such readers, for HoldBytes of 0.
	Hold      uint64
	HoldBytes int64
	// Before is a sequence number: a segment goes when all its records are below. Default: 0, none.
	Before uint64
}

// Retain deletes the oldest segments as r says, but only whole ones, only those without a record above keep, and never
// the last one. Appends go on meanwhile. After an error (on Windows, a reader in a segment is one) the rest of the log
// is whole, and what is left to delete goes with the next call.
//
// The first call reads the headers that Open left alone. A segment whose header is damaged is deleted like the others when
// its turn comes; Options.Damaged is told. One that is not of this log (ErrForeign, ErrVersion) keeps everything from being deleted.
func (l *Log) Retain(r Retention, keep uint64) error {
	damage, err := l.retain(r, keep)
	for _, d := range damage {
		l.o.Damaged(d)
	}
	return err
}

func (l *Log) retain(r Retention, keep uint64) (damage []error, err error) {
	l.retainMu.Lock()
	defer l.retainMu.Unlock()
	if damage, err = l.readHeaders(); err != nil {
		return nil, fmt.Errorf("look for what to delete: %w", err)
	}
	return damage, l.deleteExpendable(r, keep)
}

// deleteExpendable is Retain once all headers are known. retainMu is held.
func (l *Log) deleteExpendable(r Retention, keep uint64) error {
	for {
		if l.closed.Load() {
			return ErrClosed // the next leader may be at work on the files
		}
		first, ok := l.expendable(r, keep)
		if !ok {
			return nil
		}
		if !l.retained { // what a leader deleted before it died has to be durable first
			if err := syncDir(l.o.FS, l.dir); err != nil {
				return fmt.Errorf("delete segment %d: %w", first, err)
			}
			l.retained = true
		}
		path := l.o.FS.PathJoin(l.dir, segmentName(first))
		if err := l.o.FS.Remove(path); err != nil && !isNotExist(err) {
			return fmt.Errorf("delete segment %s: %w", path, err)
		}
		l.segMu.Lock()
		l.segs = append([]segment(nil), l.segs[1:]...)
		l.segMu.Unlock()
		// one at a time, so that a power cut cannot take a later segment and leave an earlier one
		if err := syncDir(l.o.FS, l.dir); err != nil {
			return fmt.Errorf("delete segment %s: %w", path, err)
		}
	}
}

// readHeaders reads the headers that Open left alone. In the place of a damaged one comes what its name and the segment
// behind it say, which keeps what is before it no shorter. So damage does not have the log grow without bound. retainMu is held.
func (l *Log) readHeaders() (damage []error, err error) {
	l.segMu.Lock()
	n := 0
	for l.segs[n].unread { // the last one never is
		n++
	}
	segs := slices.Clone(l.segs[:n+1])
	l.segMu.Unlock()
	if n == 0 {
		return nil, nil
	}
	for i := n - 1; i >= 0; i-- {
		first, next := segs[i].first, &segs[i+1]
		path := l.o.FS.PathJoin(l.dir, segmentName(first))
		s, err := loadSegment(l.o.FS, l.dir, first)
		if err == nil && s.id != l.id {
			return nil, foreign(path, s.id, l.id)
		}
		if err != nil {
			if err = damageOf(err, path, first, next); !errors.Is(err, ErrCorrupt) {
				return nil, err
			}
			damage = append(damage, err)
			s.header = header{first: first, prev: first - 1, created: next.created}
			if info, err := l.o.FS.Stat(path); err == nil {
				s.size = info.Size()
			}
		}
		segs[i] = s
	}
	if l.closed.Load() {
		return nil, ErrClosed // it may be the next leader that deleted them
	}
	l.segMu.Lock()
	copy(l.segs, segs[:n]) // meanwhile segments may have come behind them
	l.segMu.Unlock()
	return damage, nil
}

// damageOf makes a CorruptError of err, of reading the header of the segment first, if that is what it means. What has
// another magic or version is one of ours, and damaged, if the segment behind it names it.
func damageOf(err error, path string, first uint64, next *segment) error {
	switch {
	case errors.Is(err, errUnborn):
		return headless(path, first)
	case isNotExist(err):
		return &CorruptError{File: path, Seq: first, Reason: "segment has gone"}
	case (errors.Is(err, ErrForeign) || errors.Is(err, ErrVersion)) && next.before == first:
		return &CorruptError{File: path, Seq: first, Reason: "segment has lost its header"}
	}
	return err
}

// expendable returns the oldest segment if it may and should go.
func (l *Log) expendable(r Retention, keep uint64) (first uint64, ok bool) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if len(l.segs) < 2 || l.segs[1].prev > keep {
		return 0, false
	}
	if l.segs[1].prev < r.Before {
		return l.segs[0].first, true
	}
	var total, beyond int64 // of all; of those that are too much or too old
	for i := range l.segs {
		total += l.segs[i].size
	}
	for i := 0; i < len(l.segs)-1 && l.segs[i+1].prev <= keep; i++ {
		tooMuch := r.MaxBytes > 0 && total-beyond > r.MaxBytes
		tooOld := r.MaxAge > 0 && l.o.Now().Sub(unixNano(l.segs[i+1].created)) > r.MaxAge
		if !tooMuch && !tooOld {
			break
		}
		beyond += l.segs[i].size
	}
	held := r.HoldBytes > 0 && l.segs[1].prev > r.Hold && beyond <= r.HoldBytes
	return l.segs[0].first, beyond > 0 && !held
}
