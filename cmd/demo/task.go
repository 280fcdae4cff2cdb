package main

import (
	"fmt"
	"unicode/utf8"
)

// task is a number of files that a worker writes in one batch.
type task struct {
	ID   int      `json:"id"` // its place in the list of all
	Keys []string `json:"keys"`

	size  int64 // of the files, bytes
	names int   // of the keys, bytes
}

// A task is a batch of about taskBytes: small, so that the times of the
// acknowledgements tell something. taskNames bounds the length of its keys, so
// that all tasks that a worker has at a time fit into the pipe to it (64 KiB on
// Linux) and the job does not wait for one that has stopped reading.
const (
	taskBytes = 32 << 10
	taskNames = 4 << 10
)

// divide makes tasks of files.
func divide(files []sourceFile) ([]task, error) {
	var tasks []task
	t := task{}
	finish := func() {
		if len(t.Keys) > 0 {
			tasks = append(tasks, t)
			t = task{ID: t.ID + 1}
		}
	}
	for _, f := range files {
		if !utf8.ValidString(f.key) {
			return nil, fmt.Errorf("%q: a name that is not UTF-8 does not survive the pipes to the workers", f.key)
		}
		if t.size+f.size > taskBytes || t.names+len(f.key) > taskNames {
			finish()
		}
		t.Keys, t.size, t.names = append(t.Keys, f.key), t.size+f.size, t.names+len(f.key)
	}
	finish()
	return tasks, nil
}
