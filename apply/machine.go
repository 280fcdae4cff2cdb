package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/eventlog"
	"github.com/pebbleparty/pebbleparty/internal/nospace"
)

const stateVersion = 1

var (
	keyID      = []byte(ReservedPrefix + "id\x00")
	keyApplied = []byte(ReservedPrefix + "applied\x00")
	keyClean   = []byte(ReservedPrefix + "clean\x00")
)

func sessionKey(slot uint32) []byte {
	k := make([]byte, 0, len(ReservedPrefix)+6)
	k = append(k, ReservedPrefix+"s"...)
	k = binary.BigEndian.AppendUint32(k, slot)
	return append(k, 0)
}

// Machine is the state machine over one open Pebble database.
type Machine struct {
	store *store
	cmp   *pebble.Comparer
	log   *slog.Logger

	// Owned by the sequencer; while the machine is Behind, what is in replay belongs
	// to Replay.
	id     eventlog.ID
	memory         // by which commands are judged
	replay *replay // nil when Pebble has all of the log

	// sparse: no batch since the last flush that was asked for has all of the bookkeeping. The
	// next one will, so that who opens the database finds it in the newest table, mostly.
	sparse atomic.Bool

	want     sync.Once
	wanted   chan struct{} // see Wanted, in wait.go
	ready    chan struct{} // closed when Pebble is open and the state known to be that of the log
	replayed int           // see Replayed

	flushing <-chan struct{} // owned by the caller of FlushSoon: closed when its last flush has ended

	// judged is up to where the memory is: there all is as durable as it was asked to be, and
	// the commit word counts it. A replay goes so far beside the goroutine that judges. What has
	// only been appended must not be seen by anybody.
	judged  atomic.Uint64
	applied atomic.Uint64
	wait    struct {
		sync.Mutex
		changed chan struct{} // closed when judged, applied or failed changes; nil while nobody waits
		failed  error
	}
}

// Open opens Pebble in dir, with the user's options but for its write-ahead log,
// and reads the bookkeeping. lock is Pebble's lock on dir; it stays the
// caller's, to be closed after Close. A database that was made by plain Pebble
// is adopted: it has no bookkeeping yet, and ID is zero.
//
// The errors are ErrIncompatible (other comparer, merger or newer format),
// ErrCorrupt, or what the file system said.
func Open(dir string, o *pebble.Options, lock *pebble.Lock, log *slog.Logger) (*Machine, error) {
	m, err := newMachine(dir, o, lock, log)
	if err != nil {
		return nil, err
	}
	if err := m.store.open(); err != nil {
		return nil, err
	}
	id, applied, err := m.load(&m.memory)
	if err != nil {
		return nil, errors.Join(err, m.store.close())
	}
	m.id = id
	m.applied.Store(applied)
	close(m.ready)
	return m, nil
}

func newMachine(dir string, o *pebble.Options, lock *pebble.Lock, log *slog.Logger) (*Machine, error) {
	s, err := newStore(dir, o, lock, log)
	if err != nil {
		return nil, err
	}
	m := &Machine{store: s, cmp: pebble.DefaultComparer, log: log, wanted: make(chan struct{}), ready: make(chan struct{})}
	if o != nil && o.Comparer != nil {
		m.cmp = o.Comparer
	}
	m.sparse.Store(true)
	return m, nil
}

// load reads the bookkeeping from Pebble: the database id, the memory into mem, and up to
// which sequence number the log is in the state.
func (m *Machine) load(mem *memory) (id eventlog.ID, applied uint64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read the bookkeeping in %s: %w", m.store.dir, err)
		}
	}()
	mem.sessions.byOrigin = make(map[Origin]*session)
	v, err := m.reserved(keyID)
	if err != nil || v == nil {
		return id, 0, err
	}
	if len(v) != 4+len(id) {
		return id, 0, fmt.Errorf("%w: the database id is damaged", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(v); v != stateVersion {
		return id, 0, fmt.Errorf("%w: state version %d, this program knows version %d; upgrade it", ErrIncompatible, v, stateVersion)
	}
	copy(id[:], v[4:])
	if v, err = m.reserved(keyApplied); err != nil {
		return id, 0, err
	}
	if len(v) != appliedLen {
		return id, 0, fmt.Errorf("%w: the applied sequence number is damaged", ErrCorrupt)
	}
	applied = binary.LittleEndian.Uint64(v)
	mem.sessions.floor = binary.LittleEndian.Uint64(v[8:])
	mem.nanos = int64(binary.LittleEndian.Uint64(v[16:]))
	// Fixed slots, read one by one: that works under any comparer, and quickly
	// in a database of any size.
	for slot := range binary.LittleEndian.Uint32(v[24:]) {
		v, err := m.reserved(sessionKey(slot))
		if err != nil {
			return id, 0, err
		}
		if err := mem.sessions.load(slot, v); err != nil {
			return id, 0, err
		}
	}
	mem.cursors.slots, err = loadCursors(m.store.db)
	return id, applied, err
}

// reserved returns a copy of one of our own keys, nil when it is absent.
func (m *Machine) reserved(key []byte) ([]byte, error) { return reserved(m.store.db, key) }

func reserved(from pebble.Reader, key []byte) ([]byte, error) {
	v, c, err := from.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(v), c.Close()
}

// ID returns the database id, zero for a database that has no bookkeeping yet.
func (m *Machine) ID() eventlog.ID { return m.id }

// Applied returns the sequence number up to which the log is in the state.
func (m *Machine) Applied() uint64 { return m.applied.Load() }

// Failed is closed when Pebble broke in a way it does not recover from. The
// term must end; Err says why.
func (m *Machine) Failed() <-chan struct{} { return m.store.fatal }

// Err returns why Failed was closed. It may be called only after that.
func (m *Machine) Err() error { return fmt.Errorf("pebble failed: %w", m.store.fatalErr) }

// Flushed receives after Pebble made state durable: Durable may have grown.
func (m *Machine) Flushed() <-chan struct{} { return m.store.flushed }

// Full returns the error of the last flush of Pebble's that found no space on
// the disk, until one has succeeded again, else nil. While it is not nil
// commands are refused: what they wrote could not be flushed.
func (m *Machine) Full() error {
	if p := m.store.fs.full.Load(); p != nil {
		return *p
	}
	return nil
}

// Get appends the value of key to dst. Reserved keys are absent. The error is
// pebble.ErrNotFound for an absent key.
func (m *Machine) Get(dst, key []byte) ([]byte, error) {
	return m.get(m.store.db, dst, key, nil)
}

// GetIf is Get, but asks with the size of the value, in bytes, whether to append
// it: nothing is copied of one that is not wanted.
func (m *Machine) GetIf(dst, key []byte, want func(size int) bool) ([]byte, error) {
	return m.get(m.store.db, dst, key, want)
}

func (m *Machine) get(from pebble.Reader, dst, key []byte, want func(size int) bool) ([]byte, error) {
	if IsReserved(key) {
		return dst, pebble.ErrNotFound
	}
	if err := m.cmp.ValidateKey.Validate(key); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrInvalidCommand, err)
	}
	v, c, err := from.Get(key)
	if err != nil {
		return dst, err
	}
	if want == nil || want(len(v)) {
		dst = append(dst, v...)
	}
	return dst, c.Close()
}

// Durable returns up to which sequence number the state is in Pebble's durable
// tables: the log before it is not needed for recovery. It is 0 until the manifest that
// Pebble has read is known to be durable, which is so after a flush.
func (m *Machine) Durable() (seq uint64, err error) {
	if !m.isReady() || !m.store.fs.settling.settled() {
		return 0, nil
	}
	it, err := m.store.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.SeekGE(keyApplied) && bytes.Equal(it.Key(), keyApplied) && len(it.Value()) == appliedLen {
		seq = binary.LittleEndian.Uint64(it.Value())
	}
	return seq, it.Error()
}

// FlushSoon asks Pebble to make the state durable in the background. It begins
// nothing while the last such flush is still under way, which need not include
// all that is applied, or while the disk is full, when Pebble tries again by itself.
// One goroutine at a time calls it.
func (m *Machine) FlushSoon() (begun bool, err error) {
	if m.flushing != nil {
		select {
		case <-m.flushing:
		default:
			return false, nil
		}
	}
	if !m.isReady() || m.Full() != nil {
		return false, nil
	}
	m.flushing, err = m.flush()
	return err == nil, err
}

// flush has Pebble begin a new memtable, and make those before it durable.
func (m *Machine) flush() (<-chan struct{}, error) {
	flushed, err := m.store.flush()
	m.sparse.Store(true)
	return flushed, err
}

// Close closes Pebble. With clean set everything in the log is applied and made
// durable first, so that plain Pebble finds it all; otherwise what was not flushed
// is left to be replayed from the log. Nobody may use m any more; iterators must be closed.
func (m *Machine) Close(clean bool) error {
	var err error
	if clean {
		err = m.finish()
	}
	m.Stop(errors.New("apply: machine closed"))
	if !m.store.broken() { // else complete may have left somebody in it
		err = errors.Join(err, m.forget())
	}
	return errors.Join(err, m.store.close())
}

// Abandon gives Pebble up in the place of Close, when it broke and a goroutine of
// the caller's may still be in it: that gets an error, or never comes back, but
// meets no closed Pebble. Nothing of this Pebble reaches the disk once Abandon
// returned, which waits for what is under way there; its memory is lost until the
// process ends, and a file descriptor if it was Behind. The error says why Pebble broke.
func (m *Machine) Abandon() error {
	m.Stop(errors.New("apply: machine abandoned"))
	return m.store.abandon()
}

// finish marks the state as complete without its log and flushes it.
func (m *Machine) finish() error {
	if m.id == (eventlog.ID{}) {
		return nil
	}
	if err := m.complete(); err != nil {
		return err
	}
	v := binary.LittleEndian.AppendUint64(nil, m.Applied())
	err := m.store.call(func() error { return m.store.db.Set(keyClean, v, pebble.NoSync) })
	if err != nil {
		return fmt.Errorf("mark the state clean: %w", err)
	}
	return m.Flush(nil)
}

// complete is CatchUp for the end of the term, which must come to an end: it is left
// to the next leader when Pebble is broken, or the disk full.
func (m *Machine) complete() error {
	if m.replay == nil {
		return nil
	}
	if err := m.store.call(func() error { return m.catchUp(m.Full) }); err != nil {
		return fmt.Errorf("apply what is left of the log: %w", err)
	}
	return nil
}

// fullPatience is how long Flush goes on while the disk is full. Pebble tries
// again every spacePoll: if there is room again, that is long enough to find it.
const fullPatience = time.Second

// Flush makes the state durable and returns when it is, when that fails (the disk
// stays full, the log cannot be synced; Pebble goes on trying), or when stop is
// closed. It waits for Pebble to be open, see Resume.
func (m *Machine) Flush(stop <-chan struct{}) error {
	if err := m.whenReady(stop); err != nil {
		if errors.Is(err, ErrStopped) {
			err = nil
		}
		return err
	}
	select { // an old failure says nothing of this flush
	case <-m.store.failing:
	default:
	}
	flushed, err := m.flush()
	if err != nil {
		return fmt.Errorf("flush the state: %w", err)
	}
	look := time.NewTicker(spacePoll)
	defer look.Stop()
	var full error
	var enough <-chan time.Time
	for {
		select {
		case <-flushed:
			return nil
		case <-stop:
			return nil
		case <-m.store.fatal:
			return m.Err()
		case <-enough:
			return fmt.Errorf("flush the state: %w", full)
		case err = <-m.store.failing:
			if !nospace.Is(err) {
				return fmt.Errorf("flush the state: %w", err)
			}
		case <-look.C: // the manifest waits for room without failing
			err = m.Full()
		}
		if full == nil && err != nil {
			full, enough = err, time.After(fullPatience)
		}
	}
}

// NewIter returns an iterator over the state, reserved keys included. The caller
// closes it before the machine is closed.
func (m *Machine) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	return m.store.db.NewIter(o)
}

// Abandoned tells, after Close or Abandon, whether Pebble was given up rather than closed;
// then it still holds its reference to the lock that Open was given.
func (m *Machine) Abandoned() bool { return m.store.abandoned.Load() }
