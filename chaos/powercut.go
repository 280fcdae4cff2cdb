package chaos

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// cut does to the database what a power cut does: of what was written and not
// synced, some is there and some is not. No process may have it open. What is
// there afterwards is on the platter.
//
// The names of a folder come back as they were synced, as they are, or as they
// were synced with some of the new files: file systems bring changes of names to
// the disk in order, or new ones in any. The bytes of a file come back sector by
// sector; one of the log that was never there may also hold nonsense.
func (p *platter) cut(rng *rand.Rand) (string, error) {
	c := &powerCut{platter: p, rng: rng}
	for i := range p.folders {
		if err := c.folder(i); err != nil {
			return "", fmt.Errorf("cut the power: %w", err)
		}
	}
	return fmt.Sprintf("of %d files that were not synced %d lost something, %d names changed", c.unsynced, c.lost, c.renamed), p.hold()
}

type powerCut struct {
	platter                 *platter
	rng                     *rand.Rand
	unsynced, lost, renamed int
}

func (c *powerCut) folder(i int) error {
	live, err := c.platter.there(i)
	if err != nil {
		return err
	}
	durable, err := c.platter.durable(i)
	if err != nil {
		return err
	}
	after := c.names(durable, live)
	contents := map[string][]byte{}                        // of the files that are to be written
	for _, name := range slices.Sorted(maps.Keys(after)) { // in order: the seed decides
		b, same, err := c.content(after[name], isSegment(filepath.Join(c.platter.folders[i], name)))
		if err != nil {
			return err
		}
		if !same || live[name] != after[name] {
			contents[name] = b
		}
	}
	for name := range live {
		if _, ok := after[name]; !ok {
			c.renamed++
			if err := os.Remove(filepath.Join(c.platter.folders[i], name)); err != nil {
				return err
			}
		}
	}
	for name, b := range contents {
		if live[name] != after[name] {
			c.renamed++
		}
		// A new file: replicas have the old one under other names.
		path := filepath.Join(c.platter.folders[i], name)
		if err := errors.Join(os.WriteFile(path+".cut", b, 0o600), os.Rename(path+".cut", path)); err != nil {
			return err
		}
	}
	return nil
}

// names chooses what names a folder has.
func (c *powerCut) names(durable, live names) names {
	switch c.rng.IntN(4) {
	case 0:
		return live
	case 1:
		after := maps.Clone(durable)
		known := map[uint64]bool{}
		for _, number := range durable {
			known[number] = true
		}
		for _, name := range slices.Sorted(maps.Keys(live)) {
			if _, taken := durable[name]; !taken && !known[live[name]] && c.rng.IntN(2) == 0 {
				after[name] = live[name]
			}
		}
		return after
	default:
		return durable
	}
}

// content chooses what a file holds, and tells whether it is what it held.
func (c *powerCut) content(number uint64, log bool) (_ []byte, same bool, err error) {
	read := func(kind string) []byte {
		b, rerr := os.ReadFile(c.platter.path(kind, number))
		if !errors.Is(rerr, fs.ErrNotExist) { // nothing was ever synced
			err = errors.Join(err, rerr)
		}
		return b
	}
	durable, live := read("data"), read("pin")
	if err != nil {
		return nil, false, err
	}
	lost, err := c.platter.lost(number)
	if err != nil {
		return nil, false, err
	}
	if bytes.Equal(durable, live) {
		return live, true, nil
	}
	c.unsynced++
	b := c.mix(durable, live, lost, log)
	if !bytes.Equal(b, live) {
		c.lost++
		return b, false, nil
	}
	return b, true, nil
}

// mix chooses sectors of two versions of a file. lost are bytes of the one in the
// kernel's cache that no write-back brings to the disk.
func (c *powerCut) mix(durable, live []byte, lost extents, log bool) []byte {
	percent := []int{0, 0, 50, 90, 100}[c.rng.IntN(5)]
	nonsense := log && c.rng.IntN(2) == 0
	size := len(durable)
	switch low, high := min(size, len(live)), max(size, len(live)); {
	case percent == 100:
		size = len(live)
	case percent > 0:
		size = low + c.rng.IntN(high-low+1)
	}
	b := make([]byte, size)
	copy(b, durable)
	for at := 0; at < size; at += sector {
		end := min(at+sector, size)
		old, next := b[at:end], live[min(at, len(live)):min(end, len(live))]
		if bytes.Equal(old, next) || c.rng.IntN(100) >= percent {
			continue
		}
		fresh := len(bytes.Trim(old, "\x00")) == 0
		for i := range next {
			if !lost.has(int64(at + i)) {
				old[i] = next[i]
			}
		}
		if nonsense && fresh && c.rng.IntN(3) == 0 {
			old[c.rng.IntN(len(old))] ^= 1 << c.rng.IntN(8)
		}
	}
	return b
}

// tearUnsynced has the files that nobody ever syncs be as they may be after a
// power cut: the commit word as it was at some time before, which older holds, the
// endpoint empty, torn or gone.
func tearUnsynced(party string, older []byte, rng *rand.Rand) error {
	if older != nil && rng.IntN(2) == 0 {
		if err := os.WriteFile(filepath.Join(party, "commit"), older, 0o600); err != nil {
			return err
		}
	}
	path := filepath.Join(party, "endpoint")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch rng.IntN(3) {
	case 0:
		return os.Remove(path)
	case 1:
		return os.WriteFile(path, b[:rng.IntN(cmp.Or(len(b), 1))], 0o600)
	}
	return nil
}
