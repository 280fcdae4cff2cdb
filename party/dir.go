package party

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// prepareDir makes the folders and returns the one name that dir has.
func prepareDir(dir string, allowNetwork bool) (string, error) {
	if dir == "" {
		return "", errors.New("the name of the directory is empty")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := makeDirs(abs); err != nil {
		return "", err
	}
	// One directory has one name, however it is spelled: Pebble's own lock goes
	// by the name.
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	if !allowNetwork {
		if kind, err := networkFS(resolved); err != nil {
			return "", err
		} else if kind != "" {
			return "", fmt.Errorf("%w: %s is on %s: put the database on a local disk, or set Options.AllowNetworkFS if all processes run on one machine",
				ErrNetworkFS, resolved, kind)
		}
	}
	own := filepath.Join(resolved, "party")
	switch err := os.Mkdir(own, 0o700); {
	case err == nil:
		if err := syncDir(resolved); err != nil {
			return "", err
		}
	case !errors.Is(err, os.ErrExist):
		return "", err
	}
	if fi, err := os.Stat(own); err != nil {
		return "", err
	} else if !fi.IsDir() {
		return "", fmt.Errorf("%s is not a folder; party keeps its files there", own)
	}
	return resolved, nil
}

// makeDirs makes dir and what is missing above it. Each new folder is made
// durable in the one above: otherwise a power cut could take the whole database
// after its first durable write.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	above := filepath.Dir(dir)
	if err := makeDirs(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(above)
}

// path returns the path of one of our own files; "" is their folder.
func (db *DB) path(name string) string { return filepath.Join(db.dir, "party", name) }
