package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/pebbleparty/pebbleparty/party"
)

type backupCommand struct {
	Dir   string `arg:"" help:"The database; others may go on writing."`
	File  string `arg:"" help:"Where to; - is standard output. A file that exists is replaced once the backup is whole."`
	Since uint64 `help:"Only what was written behind this sequence number, which an earlier backup printed." placeholder:"SEQ"`
}

func (c *backupCommand) Run(s *session) error {
	return s.withExisting(c.Dir, func(h *handle) error {
		if c.File == "-" {
			_, err := c.write(h, os.Stdout)
			return err
		}
		var seq uint64
		err := replaceFile(c.File, func(w io.Writer) (err error) {
			seq, err = c.write(h, w)
			return err
		})
		if err == nil {
			fmt.Println(seq)
		}
		return err
	})
}

func (c *backupCommand) write(h *handle, w io.Writer) (seq uint64, err error) {
	err = h.ask(func(ctx context.Context) (err error) {
		if w := (moving{w, h.patience}); c.Since > 0 {
			seq, err = h.db.BackupSince(ctx, w, c.Since)
		} else {
			seq, err = h.db.Backup(ctx, w)
		}
		return err
	})
	return seq, err
}

// moving takes each write as an answer of the database, and leaves its reader all
// the time it wants.
type moving struct {
	w io.Writer
	p *patience
}

func (m moving) Write(b []byte) (int, error) {
	if m.p.timer == nil {
		return m.w.Write(b)
	}
	m.p.timer.Stop()
	defer m.p.timer.Reset(m.p.limit)
	return m.w.Write(b)
}

// replaceFile writes a file beside and renames it into place once it is durable.
func replaceFile(name string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

type restoreCommand struct {
	File string `arg:"" help:"A backup, or several that follow each other; - is standard input."`
	Dir  string `arg:"" help:"An empty or missing directory, or for an incremental backup the one where those before it were restored."`
}

func (c *restoreCommand) Run(s *session) error {
	in := io.Reader(os.Stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReaderSize(in, 1<<20)
	for n := 0; ; n++ {
		if _, err := r.Peek(1); n > 0 && errors.Is(err, io.EOF) {
			return nil
		}
		seq, err := party.Restore(s.ctx, r, c.Dir)
		if s.ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return err
		}
		fmt.Println(seq)
	}
}

type verifyCommand struct {
	Path string `arg:"" help:"A database, open or not, or the file of a backup."`
}

func (c *verifyCommand) Run(s *session) error {
	info, err := os.Stat(c.Path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return c.file(s)
	}
	v, err := party.Verify(s.ctx, c.Path)
	if s.ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	return printed(func(w *bufio.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		log := fmt.Sprintf("%d to %d, %d entries", v.FirstSeq, v.LastSeq, v.Entries)
		if v.LastSeq == 0 {
			log = "none"
		}
		for _, row := range []struct {
			name  string
			value any
		}{
			{"keys", fmt.Sprintf("%d, %s", v.Keys, megabytes(int64(v.Bytes)))},
			{"tables", fmt.Sprintf("%d, %s", v.Tables, megabytes(v.TableBytes))},
			{"state at", v.Applied}, {"log", log},
			{"compared", fmt.Sprintf("%d keys with the log", v.Compared)},
		} {
			fmt.Fprintf(table, "%s\t%v\n", row.name, row.value)
		}
		return table.Flush()
	})
}

func (c *verifyCommand) file(s *session) error {
	f, err := os.Open(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for n := 0; ; n++ {
		if _, err := r.Peek(1); n > 0 && errors.Is(err, io.EOF) {
			return nil
		}
		seq, since, err := party.VerifyBackup(s.ctx, r)
		if err != nil {
			return err
		}
		if since > 0 {
			fmt.Printf("%d to %d\n", since, seq)
		} else {
			fmt.Printf("full at %d\n", seq)
		}
	}
}
