package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Registers sets, gets, deletes and compares-and-swaps a few keys from all
// lanes, and has porcupine judge whether that was linearizable, each key by
// itself. The keys change every second: so every history is short, which is what
// the time of the judgement depends on, and calls without an answer, which may
// take effect at any later time, weigh on few. The first of several lanes of a
// process only reads, so that somebody reads while writes have to wait.
type Registers struct{}

const (
	registerKeys  = 6 // at a time
	registerEpoch = int64(time.Second)
	// registerPatience bounds the judgement of all keys together.
	registerPatience = time.Minute
)

// Names of the calls.
const (
	opGet    = "get"
	opSet    = "set"
	opDelete = "delete"
	opCAS    = "cas" // Input: old, a tab, new; either may be empty for absent
	opCut    = "power cut"
)

// Name returns "registers".
func (Registers) Name() string { return "registers" }

// Prepare does nothing: a register that was never written is absent.
func (Registers) Prepare(context.Context, *party.DB) error { return nil }

// registerState is what a lane remembers.
type registerState struct {
	written int
	seen    map[string]string // what it last knew of the keys of epoch
	epoch   int64
}

// Work does one call on one key.
func (Registers) Work(ctx context.Context, l *Lane) error {
	s, _ := l.State.(*registerState)
	if s == nil {
		s = &registerState{}
		l.State = s
	}
	if e := now() / registerEpoch; s.seen == nil || e != s.epoch {
		s.epoch, s.seen = e, map[string]string{}
	}
	key := fmt.Sprintf("register/%d/%d", s.epoch, l.Rand.IntN(registerKeys))
	k := []byte(key)
	// Values differ, so that a read tells which write it saw.
	s.written++
	value := l.ID + "." + strconv.Itoa(s.written)
	how, op := pebble.Sync, func(name, input string) Op { return Op{Name: name, Key: key, Input: input, Write: true} }
	if l.Rand.IntN(3) == 0 {
		how, op = pebble.NoSync, func(name, input string) Op {
			return Op{Name: name, Key: key, Input: input, Write: true, Unsynced: true}
		}
	}
	kinds := 20
	if l.Index == 0 && l.Lanes > 1 {
		kinds = 8 // reads
	}
	switch draw := l.Rand.IntN(kinds); {
	case draw < 8:
		return l.Do(ctx, Op{Name: opGet, Key: key}, func(ctx context.Context) (string, error) {
			v, err := readRegister(ctx, l.DB, k)
			s.seen[key] = v
			return v, err
		})
	case draw < 14:
		return l.Do(ctx, op(opSet, value), func(ctx context.Context) (string, error) {
			s.seen[key] = value
			return "", l.DB.Set(ctx, k, []byte(value), how)
		})
	case draw < 15:
		return l.Do(ctx, op(opDelete, ""), func(ctx context.Context) (string, error) {
			s.seen[key] = ""
			return "", l.DB.Delete(ctx, k, how)
		})
	default:
		old := s.seen[key]
		return l.Do(ctx, op(opCAS, old+"\t"+value), func(ctx context.Context) (string, error) {
			var before []byte
			if old != "" {
				before = []byte(old)
			}
			swapped, err := l.DB.CompareAndSwap(ctx, k, before, []byte(value), how)
			if swapped {
				s.seen[key] = value
			} else {
				delete(s.seen, key)
			}
			return strconv.FormatBool(swapped), err
		})
	}
}

// readRegister reads a register; "" is absent, as no value is empty.
func readRegister(ctx context.Context, db *party.DB, key []byte) (string, error) {
	v, err := db.Get(ctx, key)
	if errors.Is(err, pebble.ErrNotFound) {
		return "", nil
	}
	return string(v), err
}

// Check reads every register once more, which makes every acknowledged write
// count, and asks porcupine.
func (Registers) Check(ctx context.Context, e *Evidence) Verdict {
	calls := e.Calls
	read := map[string]bool{}
	for _, c := range e.Calls {
		if read[c.Key] {
			continue
		}
		read[c.Key] = true
		start := e.Now()
		v, err := readRegister(ctx, e.DB, []byte(c.Key))
		if err != nil {
			return Verdict{Violations: []string{fmt.Sprintf("read %s at the end: %v", c.Key, err)}}
		}
		calls = append(calls, Call{Op: Op{Name: opGet, Key: c.Key}, Lane: "final", Start: start, End: e.Now(), Output: v})
	}
	return judgeRegisters(calls, e, registerPatience)
}

// judgeRegisters has porcupine judge calls on registers.
func judgeRegisters(calls []Call, e *Evidence, patience time.Duration) Verdict {
	byKey := map[string][]porcupine.Operation{}
	lanes := map[string]int{}
	first := map[string]int64{} // when a key was first used
	for _, c := range calls {
		if c.Refused {
			continue // it was not applied, which the reads confirm
		}
		if _, ok := lanes[c.Lane]; !ok {
			lanes[c.Lane] = len(lanes)
		}
		op := porcupine.Operation{ClientId: lanes[c.Lane], Input: c, Call: c.Start, Output: c, Return: c.End}
		if !c.OK() {
			if c.Name == opGet {
				continue // a read without an answer says nothing
			}
			op.Return = math.MaxInt64 // it may take effect at any later time, or never
		}
		byKey[c.Key] = append(byKey[c.Key], op)
		if at, ok := first[c.Key]; !ok || c.Start < at {
			first[c.Key] = c.Start
		}
	}
	for i, at := range e.Cuts {
		cut := Call{Op: Op{Name: opCut}, Start: at, End: at}
		for key := range byKey {
			if first[key] < at {
				byKey[key] = append(byKey[key], porcupine.Operation{ClientId: len(lanes) + i, Input: cut, Call: at, Output: cut, Return: at})
			}
		}
	}
	v := Verdict{Detail: fmt.Sprintf("%d calls on %d keys are linearizable", len(calls), len(byKey))}
	deadline := time.Now().Add(patience)
	undecided := 0
	for key, history := range byKey {
		// A key that is hard to judge must leave time for the others; 0 would be no bound.
		share := max(time.Until(deadline)/4, time.Nanosecond)
		switch result, info := porcupine.CheckOperationsVerbose(registerModel, history, share); result {
		case porcupine.Illegal:
			v.violate(fmt.Sprintf("%s: %d calls are not linearizable", key, len(history)))
			if v.Link == "" {
				v.attach(e, "registers.html", info)
			}
		case porcupine.Unknown:
			undecided++
		}
	}
	if undecided > 0 {
		v.Undecided = fmt.Sprintf("%d of %d keys could not be judged within %s", undecided, len(byKey), patience)
	}
	return v
}

// attach writes porcupine's picture of what went wrong.
func (v *Verdict) attach(e *Evidence, name string, info porcupine.LinearizationInfo) {
	w, err := e.Attach(name)
	if err == nil {
		err = errors.Join(porcupine.Visualize(registerModel, info, w), w.Close())
	}
	if err != nil {
		v.violate(fmt.Sprintf("the picture of it could not be written: %v", err))
		return
	}
	v.Link = name
}
