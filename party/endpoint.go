package party

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/pebbleparty/pebbleparty/embednats"
)

const (
	endpointMagic   = "pebbleparty-endpoint"
	endpointVersion = 3
	// maxEndpoint bounds what is read of a file that may be anything.
	maxEndpoint = 64 << 10
)

// endpoint says where the leader listens. It is a file that other processes
// read; only the holder of the leader lock writes or removes it.
type endpoint struct {
	Magic   string `json:"magic"`
	Version int    `json:"version"`
	// Directory is the directoryID of the database's directory. Whoever copies that while it is
	// in use copies this file too, and the leader it names has nothing to do with the copy.
	Directory string            `json:"directory"`
	Database  string            `json:"database"`
	Term      uint64            `json:"term"`
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Address   embednats.Address `json:"address"`
}

var errNoEndpoint = errors.New("party: no leader has published where it listens")

// errOtherEndpoint: the file was written by another version of party. That
// process may be long dead, so it counts only if nothing else turns up.
var errOtherEndpoint = errors.New("party: endpoint file of version")

func decodeEndpoint(b []byte) (endpoint, error) {
	var e endpoint
	if err := json.Unmarshal(b, &e); err != nil || e.Magic != endpointMagic {
		// A power cut can leave an empty or torn file, since it is not synced;
		// the leader that wrote it is gone then.
		return endpoint{}, fmt.Errorf("%w: the endpoint file is not one of ours", errNoEndpoint)
	}
	if e.Version != endpointVersion {
		return endpoint{}, fmt.Errorf("%w: %w %d, this program knows version %d; run the same version of party in all processes",
			ErrIncompatible, errOtherEndpoint, e.Version, endpointVersion)
	}
	if e.Address == "" {
		return endpoint{}, fmt.Errorf("%w: the endpoint file names no address", errNoEndpoint)
	}
	return e, nil
}

// readEndpoint returns what the last leader of the database in dir has published.
func readEndpoint(dir string) (endpoint, error) {
	f, err := os.Open(filepath.Join(dir, "party", "endpoint"))
	if errors.Is(err, os.ErrNotExist) {
		return endpoint{}, errNoEndpoint
	}
	if err != nil {
		return endpoint{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEndpoint))
	if err != nil {
		return endpoint{}, fmt.Errorf("%w: %w", errNoEndpoint, err)
	}
	e, err := decodeEndpoint(b)
	if err != nil {
		return endpoint{}, err
	}
	id, err := directoryID(dir)
	if err != nil {
		return endpoint{}, err
	}
	if e.Directory != id {
		return endpoint{}, fmt.Errorf("%w: the endpoint file is a copy of another directory's", errNoEndpoint)
	}
	return e, nil
}

// encode returns the content of the file.
func (e endpoint) encode() ([]byte, error) {
	e.Magic, e.Version = endpointMagic, endpointVersion
	b, err := json.Marshal(e)
	return append(b, '\n'), err
}

// publish puts e in place for others to find. Nothing is synced: the file means
// something only while the process that wrote it lives.
func (e endpoint) publish(path string) error {
	b, err := e.encode()
	if err != nil {
		return err
	}
	tmp := path + ".new" // one name: only the lock holder writes it
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	// What the leader before left goes first: over a file ext4 renames a new one only
	// after it has begun to write that out.
	_ = os.Remove(path)
	if err := renameOver(tmp, path); err != nil {
		return fmt.Errorf("publish %s: %w", filepath.Base(path), err)
	}
	return nil
}
