package apply

import "errors"

// What Judge and CheckRepr refuse a command with. None of them was applied.
var (
	// ErrReservedKey: the command writes a key under ReservedPrefix.
	ErrReservedKey = errors.New("apply: key is in the reserved key space")
	// ErrTooLarge: the batch is longer than MaxBatch.
	ErrTooLarge = errors.New("apply: batch too large")
	// ErrUnsupported: the batch holds an operation other than Set, Delete,
	// SingleDelete, DeleteRange and Merge.
	ErrUnsupported = errors.New("apply: operation not supported")
	// ErrInvalidBatch: the bytes are not a Pebble batch.
	ErrInvalidBatch = errors.New("apply: invalid batch")
	// ErrInvalidCommand: the bytes are not an encoded command or entry.
	ErrInvalidCommand = errors.New("apply: invalid command")
)

// What opening and recovering can report.
var (
	// ErrCorrupt: log and state contradict each other, or bookkeeping is
	// damaged. Nothing was changed.
	ErrCorrupt = errors.New("apply: state and log do not fit together")
	// ErrIncompatible: the database was made with another comparer or merger,
	// or by a newer version.
	ErrIncompatible = errors.New("apply: incompatible database")
)
