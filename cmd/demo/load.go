package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/pebbleparty/pebbleparty/party"
)

type loadCommand struct {
	Dir     string   `arg:"" help:"The database; created if there is none."`
	Path    []string `arg:"" help:"Folders and tab-separated files."`
	Prefix  string   `help:"Put this before every key." placeholder:"P"`
	Escaped bool     `help:"Undo the escapes of \"demo scan\" in tab-separated files."`
}

func (c *loadCommand) Help() string {
	return "A folder gives a key per regular file: its path below the folder, with slashes, → its content. " +
		"Any other file holds a key, a tab and a value per line; later lines win. The pairs are written in order, in " +
		"batches, each durable when it is counted; a load that was interrupted can simply be run again."
}

// loadBatch is how many bytes are written at once: enough to make the sync of
// each batch cheap, and little to hold in memory.
const loadBatch = 1 << 20

func (c *loadCommand) Run(s *session) error {
	var sources []source
	var total int64
	for _, path := range c.Path {
		src, err := openSource(path, c.Dir, c.Escaped)
		if err != nil {
			return err
		}
		sources = append(sources, src)
		total += src.size
	}
	start := time.Now()
	l := loader{prefix: c.Prefix, bar: newBar(total, "loading")}
	err := s.with(c.Dir, func(h *handle) error {
		l.handle = h
		for _, src := range sources {
			if err := src.pairs(h.ctx, l.add); err != nil {
				return err
			}
		}
		return l.flush()
	})
	if err != nil {
		return fmt.Errorf("%w\ndemo: %d keys were loaded before that", err, l.keys)
	}
	_ = l.bar.Finish()
	took := time.Since(start)
	fmt.Printf("loaded %d keys, %s in %.1f s: %s/s\n", l.keys, megabytes(l.bytes), took.Seconds(),
		megabytes(int64(float64(l.bytes)/took.Seconds())))
	for _, src := range sources {
		if src.skipped > 0 {
			fmt.Printf("%s: left out %d that are no regular files\n", src.path, src.skipped)
		}
	}
	return nil
}

// loader writes pairs in batches of bounded size.
type loader struct {
	handle *handle
	prefix string
	bar    *progressbar.ProgressBar

	batch   pebble.Batch
	pending int64 // bytes of keys and values in batch
	source  int64 // bytes of the source that batch stands for
	keys    int   // acknowledged
	bytes   int64 // acknowledged, of keys and values
}

// pairOverhead is more than a batch of one pair needs besides key and value.
const pairOverhead = 64

// add takes a pair and the number of bytes that it had in its source.
func (l *loader) add(key, value []byte, size int64) error {
	key = append([]byte(l.prefix), key...)
	if len(key)+len(value)+pairOverhead > party.MaxBatch {
		return fmt.Errorf("%s: %w: %d bytes", printable(string(key)), party.ErrTooLarge, len(value))
	}
	if !l.batch.Empty() && l.batch.Len()+len(key)+len(value) > loadBatch {
		if err := l.flush(); err != nil {
			return err
		}
	}
	l.source += size
	l.pending += int64(len(key) + len(value))
	return l.batch.Set(key, value, nil)
}

func (l *loader) flush() error {
	if l.batch.Empty() {
		return nil
	}
	err := l.handle.write(func(ctx context.Context) error {
		_, err := l.handle.db.Apply(ctx, &l.batch, pebble.Sync)
		return err
	})
	if err != nil {
		return err
	}
	l.keys += int(l.batch.Count())
	l.bytes += l.pending
	_ = l.bar.Add64(l.source)
	l.batch.Reset()
	l.pending, l.source = 0, 0
	return nil
}

// newBar is a bar on standard error if that is a terminal, and nothing if not.
func newBar(total int64, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(max(total, 1),
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(term.IsTerminal(int(os.Stderr.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
