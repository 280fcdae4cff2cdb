package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pebbleparty/pebbleparty/party"
)

// comparison is what the database holds, against the files.
type comparison struct {
	keys      int
	bytes     int64 // of the values
	took      time.Duration
	missing   []string // files without a key
	extra     []string // keys without a file, and keys that came twice or out of order
	different []string // keys with another content than their file
}

func (c *comparison) err() error {
	if len(c.missing)+len(c.extra)+len(c.different) == 0 {
		return nil
	}
	return fmt.Errorf("the database differs from the files: %d missing%s, %d extra%s, %d different%s",
		len(c.missing), examples(c.missing), len(c.extra), examples(c.extra), len(c.different), examples(c.different))
}

func examples(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	shown := make([]string, 0, 3)
	for _, key := range keys[:min(len(keys), 3)] {
		shown = append(shown, printable(key))
	}
	return " (" + strings.Join(shown, ", ") + ")"
}

// compare walks over every key of the database, with a handle of the job's own
// that joins the workers', and over the files, both in the order of the keys.
func (j *job) compare() error {
	start := time.Now()
	h, err := j.join(j.dir, nil)
	if err != nil {
		return err
	}
	c := &comparison{}
	files := slices.Clone(j.files.files)
	slices.SortFunc(files, func(a, b sourceFile) int { return strings.Compare(a.key, b.key) })
	bar := newBar(j.files.size, "comparing")
	err = iterate(h, &party.IterOptions{}, false, func(key, value []byte) (bool, error) {
		c.keys++
		c.bytes += int64(len(value))
		_ = bar.Set64(min(c.bytes, j.files.size))
		for len(files) > 0 && files[0].key < string(key) {
			c.missing = append(c.missing, files[0].key)
			files = files[1:]
		}
		if len(files) == 0 || files[0].key != string(key) {
			c.extra = append(c.extra, string(key))
			return true, nil
		}
		content, err := j.files.read(files[0])
		if err != nil {
			return false, err
		}
		if !bytes.Equal(content, value) {
			c.different = append(c.different, string(key))
		}
		files = files[1:]
		return true, nil
	})
	for _, f := range files {
		c.missing = append(c.missing, f.key)
	}
	_ = bar.Finish()
	c.took = time.Since(start)
	if err := errors.Join(err, h.close()); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	j.found = c
	return c.err()
}
