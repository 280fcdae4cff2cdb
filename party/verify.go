package party

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/pebbleparty/pebbleparty/apply"
	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/snapshot"
)

// Verified says what Verify has read and found whole.
type Verified struct {
	Live       bool   // somebody had the database open
	Keys       uint64 // in the state
	Bytes      uint64 // of those keys and their values
	Tables     int    // files that hold the state
	TableBytes int64
	Applied    uint64 // sequence number that the state in the tables is at
	FirstSeq   uint64 // first record of the log, 0 if there is no log
	LastSeq    uint64 // last record of the log that was read
	Entries    uint64 // of the log: committed batches
	Compared   uint64 // keys whose newest write is still in the log and was compared with the state
}

// Verify reads the whole database in dir and tells what is wrong with it: every
// block of every table with its checksum, every key in order, every record of the
// log with its checksum; that the log continues the state without a gap, and that
// for every key that the log writes, and every named subscription that it moves,
// the state has what the log says. It changes nothing.
//
// A database that nobody has open is looked at in place; who wants to open it
// meanwhile waits until it is done, or ctx of his ends. One that is open is joined
// as Open does, and a snapshot of it is looked at, which has the same table files, and
// the log up to another one; retention goes on meanwhile, and the log that it removes
// before it was read is not looked at.
//
// What plain Pebble writes to the directory between two uses by party is in no log:
// of a key that the log writes it is taken for damage until retention has removed
// that log.
//
// The error is ErrCorrupt with the file, or what does not fit, for the first
// damage that was found; ErrIncompatible, ErrInUse when a program that does not
// use party has it open, os.ErrNotExist when there is no database, that of ctx, or
// what the file system said.
func Verify(ctx context.Context, dir string) (Verified, error) { return VerifyWith(ctx, dir, nil) }

// VerifyWith is Verify for a database with a Comparer or Merger of its own: o are
// the Options that it is opened with.
func VerifyWith(ctx context.Context, dir string, o *Options) (Verified, error) {
	opts, err := prepare(o)
	if err != nil {
		return Verified{}, err
	}
	var out Verified
	err = verify(ctx, dir, o, &opts, &out)
	switch {
	case err == nil:
		return out, nil
	case isLocked(err):
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return out, fmt.Errorf("party: verify %s: %w", dir, wrapError(err))
}

func verify(ctx context.Context, dir string, o, opts *Options, out *Verified) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	lockPath := filepath.Join(dir, "party", "leader.lock")
	if _, err := os.Stat(lockPath); errors.Is(err, os.ErrNotExist) {
		return verifyClosed(ctx, dir, opts, out) // party never had it open
	}
	lock, ok, err := tryLock(lockPath)
	if err != nil {
		return err
	}
	if !ok {
		return verifyLive(ctx, dir, o, out)
	}
	return errors.Join(verifyClosed(ctx, dir, opts, out), lock.unlock())
}

func (out *Verified) set(v snapshot.Verified) {
	out.Keys, out.Bytes, out.Tables, out.TableBytes = v.Keys, v.Bytes, v.Tables, v.TableBytes
	out.Applied, out.FirstSeq, out.LastSeq = v.Applied, v.First, v.Last
	out.Entries, out.Compared = v.Entries, v.Compared
}

// verifyLive looks at a database that others have open.
func verifyLive(ctx context.Context, dir string, o *Options, out *Verified) (err error) {
	out.Live = true
	db, err := Open(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var found snapshot.Verified
	defer func() { out.set(found) }()
	cmp := db.opts.Pebble.Comparer
	err = db.look(ctx, func(v *apply.View) error { return snapshot.VerifyState(ctx, v, cmp, &found) })
	if err != nil {
		return err
	}
	// Of a database of some size the log is another one by now.
	return db.look(ctx, func(v *apply.View) error {
		return snapshot.VerifyLog(ctx, v, db.opts.Pebble.FS, db.path("log"), v.Seq(), 0, cmp, &found)
	})
}

// look calls with with what a snapshot is of, which is current.
func (db *DB) look(ctx context.Context, with func(v *apply.View) error) (err error) {
	s, err := db.NewSnapshot(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.exit()
	return with(s.view)
}

// verifyClosed looks at a database that nobody has open.
func verifyClosed(ctx context.Context, dir string, opts *Options, out *Verified) (err error) {
	there, err := snapshot.Exists(opts.Pebble.FS, dir)
	if err == nil && !there {
		err = fmt.Errorf("no database: %w", os.ErrNotExist)
	}
	if err != nil {
		return err
	}
	m, err := apply.OpenReadOnly(dir, opts.Pebble, opts.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(false)) }()
	view := m.View()
	defer view.Close()
	var found snapshot.Verified
	defer func() { out.set(found) }()
	cmp := opts.Pebble.Comparer
	if err := snapshot.VerifyState(ctx, view, cmp, &found); err != nil {
		return err
	}
	durable := uint64(0)
	if word, err := eventlog.ReadCommit(filepath.Join(dir, "party", "commit")); err == nil {
		if word.ID() == m.ID() {
			durable = word.Durable()
		}
		if err := word.Close(); err != nil {
			return err
		}
	}
	log := filepath.Join(dir, "party", "log")
	there, err = eventlog.Exists(opts.Pebble.FS, log)
	if err != nil {
		return err
	}
	if !there {
		clean, err := m.Clean()
		if err != nil {
			return err
		}
		if !clean || durable > m.Applied() {
			return fmt.Errorf("%w: %s is missing or empty, and the last leader did not close cleanly", ErrCorrupt, log)
		}
		return nil
	}
	return snapshot.VerifyLog(ctx, view, opts.Pebble.FS, log, math.MaxUint64, durable, cmp, &found)
}
