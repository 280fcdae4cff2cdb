package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// OpenReadOnly opens Pebble in dir, which nobody else has open, to look at what
// is flushed. It changes nothing. The errors are those of Open.
func OpenReadOnly(dir string, o *pebble.Options, log *slog.Logger) (*Machine, error) {
	c := o.Clone()
	if c == nil {
		c = &pebble.Options{}
	}
	c.ReadOnly, c.ErrorIfExists, c.ErrorIfNotExists = true, false, true
	return Open(dir, c, nil, log)
}

// CheckTables reads every block of every table of the machine that v is of and
// checks its checksum. It returns how many tables there are and their size. The
// error is ErrCorrupt and names the file, that of ctx, or what the file system said.
func (v *View) CheckTables(ctx context.Context) (tables int, bytes int64, err error) {
	s := v.m.store
	levels, err := s.db.SSTables()
	if err != nil {
		return 0, 0, err
	}
	seen := make(map[string]bool) // virtual tables share a file
	for _, level := range levels {
		for i := range level {
			path := s.fs.PathJoin(s.dir, fmt.Sprintf("%s.sst", level[i].BackingSSTNum))
			if seen[path] {
				continue
			}
			seen[path] = true
			if err := ctx.Err(); err != nil {
				return tables, bytes, err
			}
			n, err := s.checkTable(ctx, path)
			if pebble.IsCorruptionError(err) {
				err = fmt.Errorf("%w: table %s: %w", ErrCorrupt, path, err)
			}
			if err != nil {
				return tables, bytes, fmt.Errorf("check table %s: %w", path, err)
			}
			tables++
			bytes += n
		}
	}
	return tables, bytes, nil
}

func (s *store) checkTable(ctx context.Context, path string) (size int64, err error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return 0, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	size = readable.Size()
	o := s.opts.Clone()
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return 0, err // it has closed the file
	}
	return size, errors.Join(r.ValidateBlockChecksums(), r.Close())
}
