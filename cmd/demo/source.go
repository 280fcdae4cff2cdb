package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pebbleparty/pebbleparty/party"
)

// source is something that load reads pairs from.
type source struct {
	path    string
	size    int64 // bytes
	skipped int   // things in a folder that are no regular files
	// pairs calls add for each pair until ctx ends, with the number of the source's bytes that
	// it stands for. Key and value are good until add returns.
	pairs func(ctx context.Context, add addPair) error
}

type addPair func(key, value []byte, size int64) error

// openSource looks at path. The database dir is left out of a folder that it
// lies in: its files change while they are read.
func openSource(path, dir string, escaped bool) (source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return source{}, err
	}
	if !info.IsDir() {
		return source{path: path, size: info.Size(), pairs: func(ctx context.Context, add addPair) error {
			return tabSeparated(ctx, path, escaped, add)
		}}, nil
	}
	f, err := listFolder(path, dir)
	if err != nil {
		return source{}, err
	}
	return source{path: path, size: f.size, skipped: f.skipped, pairs: func(ctx context.Context, add addPair) error {
		for _, file := range f.files {
			if ctx.Err() != nil {
				return errInterrupted
			}
			value, err := f.read(file)
			if err != nil {
				return err
			}
			if err := add([]byte(file.key), value, file.size); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// folder is a list of the regular files below a folder, in the order of a walk.
type folder struct {
	path    string
	files   []sourceFile
	size    int64 // of all files, bytes
	skipped int   // other things than files and folders
}

type sourceFile struct {
	key  string // the path below the folder, with slashes
	size int64
}

func listFolder(path, except string) (folder, error) {
	f := folder{path: path}
	// except may not exist yet.
	exceptInfo, err := os.Stat(except)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folder{}, err
	}
	// A root that is a symbolic link would be visited as a link, not walked.
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return folder{}, err
	}
	err = filepath.WalkDir(root, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() && !entry.Type().IsRegular() {
			f.skipped++
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if exceptInfo != nil && os.SameFile(info, exceptInfo) {
				return filepath.SkipDir
			}
			return nil
		}
		below, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		f.files = append(f.files, sourceFile{key: filepath.ToSlash(below), size: info.Size()})
		f.size += info.Size()
		return nil
	})
	return f, err
}

// read refuses, before it takes memory for it, what the database would refuse.
func (f *folder) read(file sourceFile) ([]byte, error) {
	if file.size > party.MaxBatch {
		return nil, fmt.Errorf("%s: %w: %d bytes", file.key, party.ErrTooLarge, file.size)
	}
	return os.ReadFile(f.at(file.key))
}

// at is the file that a key stands for.
func (f *folder) at(key string) string { return filepath.Join(f.path, filepath.FromSlash(key)) }

// tabSeparated reads a pair per line: the key is what comes before the first
// tab. Empty lines count for nothing, and a carriage return before the line end
// belongs to the line end.
func tabSeparated(ctx context.Context, path string, escaped bool, add addPair) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// A read of a pipe or a terminal ends with the file, not with a signal.
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	r := bufio.NewReaderSize(f, 1<<20)
	for number := 1; ; number++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		fail := func(err error) error { return fmt.Errorf("%s:%d: %w", path, number, err) }
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return fail(err)
		}
		pair := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(pair) == 0 {
			continue
		}
		key, value, ok := bytes.Cut(pair, []byte("\t"))
		if !ok {
			return fail(errors.New("no tab between key and value"))
		}
		if escaped {
			if key, err = unescape(key); err != nil {
				return fail(err)
			}
			if value, err = unescape(value); err != nil {
				return fail(err)
			}
		}
		if err := add(key, value, int64(len(line))); err != nil {
			return fail(err)
		}
	}
}

// readLine returns the next line with its end, which the last may lack.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= 4*party.MaxBatch+1: // an escape is four bytes for one
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, party.ErrTooLarge
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		default:
			return line, err
		}
	}
}
