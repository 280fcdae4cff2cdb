package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pebbleparty/pebbleparty/party"
)

// flipBit turns over one bit of what is durable in the log, sees whether the
// database is refused for it, and turns it back. All processes are dead. What is
// durable the commit word says, which is right for as long as no power is cut.
func (c *conductor) flipBit(ctx context.Context, f Fault) (string, error) {
	rng := rand.New(rand.NewPCG(c.plan.Seed, math.Float64bits(f.Pick)))
	party := filepath.Join(c.db, "party")
	segments, err := filepath.Glob(filepath.Join(party, "log", "*.log"))
	if err != nil || len(segments) == 0 {
		return "", errors.Join(err, os.ErrNotExist)
	}
	slices.Sort(segments) // names are numbers of one length
	word, err := os.ReadFile(filepath.Join(party, "commit"))
	if err != nil {
		return "", err
	}
	durable := binary.NativeEndian.Uint64(word[commitDurable:])
	// The newest is what opens are about; any is what Verify is.
	path := segments[len(segments)-1]
	if rng.IntN(3) == 0 {
		path = segments[rng.IntN(len(segments))]
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	frames := slices.DeleteFunc(logFrames(b), func(f logFrame) bool { return f.seq > durable || f.kind == frameReserve })
	if len(frames) == 0 {
		return "nothing in the last segment is durable: left alone", nil
	}
	hit := frames[rng.IntN(len(frames))]
	at := hit.at + rng.IntN(hit.size)
	note := fmt.Sprintf("byte %d of %s, entry %d", at, filepath.Base(path), hit.seq)
	if err := flip(path, at, 1<<rng.IntN(8)); err != nil {
		return "", err
	}
	c.refused(ctx, path, path == segments[len(segments)-1], hit, note)
	return note, restore(path, at, b[at])
}

// refused has the database opened, and looked at, and takes note if that goes well.
func (c *conductor) refused(ctx context.Context, path string, newest bool, hit logFrame, note string) {
	ctx, cancel := context.WithTimeout(ctx, c.plan.CallTimeout)
	defer cancel()
	options := c.plan.Job.options()
	options.Pebble = options.Pebble.Clone()
	options.Pebble.FS = newDisk(below(c.plan.Job), c.db, c.platter, c.plan.Seed)
	how := map[string]func() error{
		"Verify": func() error { _, err := party.VerifyWith(ctx, c.db, options); return err },
	}
	if newest { // an older one is read by who needs it
		how["Open"] = func() error {
			db, err := party.Open(ctx, c.db, options)
			if err != nil {
				return err
			}
			return db.Close()
		}
	}
	for name, do := range how {
		err := do()
		switch {
		case ctx.Err() != nil:
			c.violate("a bit of the log was turned over, %s: %s took longer than %s", note, name, c.plan.CallTimeout)
		case err == nil:
			c.violate("a bit of the log was turned over, %s: %s did not notice", note, name)
		case !errors.Is(err, party.ErrCorrupt),
			!strings.Contains(err.Error(), fmt.Sprintf("%s at offset %d, sequence number %d:", filepath.Base(path), hit.at, hit.next)):
			c.violate("a bit of the log was turned over, %s (its frame begins at %d): %s said: %v", note, hit.at, name, err)
		}
	}
}

func flip(path string, at int, bit byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return restore(path, at, b[at]^bit)
}

func restore(path string, at int, b byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, int64(at))
	return errors.Join(err, f.Close())
}

// What is needed of the formats of the log and of the commit word, as the
// documentation of the eventlog package has them.
const (
	segmentHeader = 128
	segmentPrev   = 40
	frameHeader   = 32
	frameReserve  = 3
	commitDurable = 384
)

// logFrame is a frame of a segment, without the zeros behind it.
type logFrame struct {
	at, size int
	seq      uint64
	next     uint64 // the number that follows on the record before it: behind a gap not its own, and all that is known of it when it is damaged
	kind     byte
}

// logFrames returns the frames of a segment, up to the first that cannot be one.
// It does not look at checksums.
func logFrames(b []byte) []logFrame {
	var frames []logFrame
	if len(b) < segmentHeader {
		return nil
	}
	last := binary.LittleEndian.Uint64(b[segmentPrev:])
	for at := segmentHeader; at+frameHeader <= len(b); {
		f := logFrame{
			at: at, size: frameHeader + int(binary.LittleEndian.Uint32(b[at+4:])),
			seq: binary.LittleEndian.Uint64(b[at+8:]), next: last + 1, kind: b[at+24],
		}
		if f.kind == 0 || f.kind > frameReserve || f.size > len(b)-at {
			break
		}
		frames = append(frames, f)
		if f.kind != frameReserve {
			last = f.seq
		}
		at += (f.size + 7) &^ 7
	}
	return frames
}
