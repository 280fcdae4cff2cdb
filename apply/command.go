package apply

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// Origin identifies the handle a command comes from: a random number made when
// the handle is opened.
type Origin [16]byte

// String returns o in hexadecimal.
func (o Origin) String() string { return hex.EncodeToString(o[:]) }

// Command is one write as a caller asked for it. It does not change once it is
// made, except for Retry and Low, which each sending sets anew.
type Command struct {
	Origin Origin
	// Number counts the commands of an origin, from 1, without reuse.
	Number uint64
	// Low is the lowest number of this origin that has no answer yet: nothing
	// below it will ever come again.
	Low uint64
	// Retry: an earlier leader may have logged this command.
	Retry bool
	// Since is the highest sequence number the origin knew of when it first
	// sent this command.
	Since uint64
	// Sync: the answer may only be given once the entry is durable.
	Sync bool
	// Cond, when not nil, must hold for the command to take effect.
	Cond *Condition
	// Cursor: it moves a named cursor, see MoveCursor, and nothing else.
	Cursor bool
	// Repr is a Pebble batch representation; its sequence number is ignored.
	Repr []byte
}

// Condition compares the value of one key.
type Condition struct {
	Key    []byte
	Absent bool   // the key must be absent
	Value  []byte // otherwise: it must have exactly this value
}

// Size is about how many bytes the command takes in a message or in the log.
func (c *Command) Size() int {
	n := 64 + len(c.Repr)
	if c.Cond != nil {
		n += len(c.Cond.Key) + len(c.Cond.Value)
	}
	return n
}

const (
	flagSync = 1 << iota
	flagRetry
	flagCond
	flagAbsent
	flagCursor
	flagsKnown = flagSync | flagRetry | flagCond | flagAbsent | flagCursor
)

// AppendCommand appends the wire form of c to dst and returns it. Origin and
// Low, which all commands of one message share, are not part of it.
func AppendCommand(dst []byte, c *Command) []byte {
	var flags byte
	if c.Sync {
		flags |= flagSync
	}
	if c.Retry {
		flags |= flagRetry
	}
	if c.Cond != nil {
		flags |= flagCond
		if c.Cond.Absent {
			flags |= flagAbsent
		}
	}
	if c.Cursor {
		flags |= flagCursor
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, c.Number)
	dst = binary.AppendUvarint(dst, c.Since)
	if c.Cond != nil {
		dst = appendBytes(dst, c.Cond.Key)
		if !c.Cond.Absent {
			dst = appendBytes(dst, c.Cond.Value)
		}
	}
	return appendBytes(dst, c.Repr)
}

// DecodeCommand decodes one command from the front of src and returns the rest.
// The command's slices point into src. The batch itself is not checked here;
// Judge does.
func DecodeCommand(src []byte, c *Command) (rest []byte, err error) {
	d := decoder{src: src}
	flags := d.byte()
	if flags&^flagsKnown != 0 {
		return nil, fmt.Errorf("%w: unknown flags %#x", ErrInvalidCommand, flags)
	}
	c.Sync, c.Retry, c.Cursor = flags&flagSync != 0, flags&flagRetry != 0, flags&flagCursor != 0
	c.Number, c.Since = d.uvarint(), d.uvarint()
	c.Cond = nil
	if flags&flagCond != 0 {
		c.Cond = &Condition{Key: d.bytes(), Absent: flags&flagAbsent != 0}
		if !c.Cond.Absent {
			c.Cond.Value = d.bytes()
		}
	}
	c.Repr = d.bytes()
	if d.bad {
		return nil, fmt.Errorf("%w: truncated", ErrInvalidCommand)
	}
	return d.src, nil
}

// Entry is a command as the log holds it: what took effect, and nothing that
// needs the state to be understood.
type Entry struct {
	Time   time.Time // the leader's, never before that of the entry before
	Origin Origin
	Number uint64
	Low    uint64
	Cursor bool // it moves a cursor; Repr says nothing of any key
	Repr   []byte

	shape shape
}

const (
	// entryVersion is raised too when an entry may hold operations that programs
	// before do not know: a leader looks at those only after its term has begun.
	entryVersion = 1
	entryCursor  = 1 // flag
	entryFixed   = 1 + 1 + 8 + 16
)

// appendEntry appends the log form of a command to dst.
func appendEntry(dst []byte, c *Command, nanos int64) []byte {
	var flags byte
	if c.Cursor {
		flags = entryCursor
	}
	dst = append(dst, entryVersion, flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(nanos))
	dst = append(dst, c.Origin[:]...)
	dst = binary.AppendUvarint(dst, c.Number)
	dst = binary.AppendUvarint(dst, c.Number-c.Low)
	// Pebble writes its own sequence number into the header of a batch that it
	// commits. The log must not depend on that.
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(dst, c.Repr[8:]...)
}

// DecodeEntry decodes a log entry. The batch points into src and was checked.
func DecodeEntry(src []byte) (Entry, error) {
	e, err := decodeHead(src)
	if err == nil && !e.Cursor {
		e.shape, err = scanRepr(e.Repr)
	}
	return e, err
}

// decodeHead is DecodeEntry for those who want to know who wrote, and when, and how
// cursors moved: the batch was not looked at.
func decodeHead(src []byte) (Entry, error) {
	var e Entry
	if len(src) < entryFixed {
		return e, fmt.Errorf("%w: %d bytes", ErrInvalidCommand, len(src))
	}
	if src[0] != entryVersion || src[1]&^entryCursor != 0 {
		return e, fmt.Errorf("%w: entry version %d with flags %#x, this program knows version %d; upgrade it",
			ErrIncompatible, src[0], src[1], entryVersion)
	}
	e.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(src[2:])))
	copy(e.Origin[:], src[10:])
	d := decoder{src: src[entryFixed:]}
	e.Number = d.uvarint()
	below := d.uvarint()
	if d.bad || below > e.Number {
		return e, fmt.Errorf("%w: bad command number", ErrInvalidCommand)
	}
	e.Low = e.Number - below
	e.Repr, e.Cursor = d.src, src[1] == entryCursor
	if e.Cursor {
		_, err := parseCursor(e.Repr)
		return e, err
	}
	return e, nil
}

// decoder takes values off the front of src; bad says that something was short.
type decoder struct {
	src []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.src) == 0 {
		d.bad = true
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	if n <= 0 {
		d.bad, d.src = true, nil
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.src)) {
		d.bad, d.src = true, nil
		return nil
	}
	b := d.src[:n:n]
	d.src = d.src[n:]
	return b
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
