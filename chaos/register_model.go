package chaos

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// register is what is known of one register. A power cut may take writes with
// pebble.NoSync, back to the last one with pebble.Sync, and which of them it took
// shows when the register is read.
type register struct {
	may   []string // it has one of these; "" is absent. Sorted, and one but for power cuts
	older []string // a power cut may bring back one of these. Sorted
}

// with returns sorted values with one more.
func with(values []string, v ...string) []string {
	all := slices.Concat(values, v)
	slices.Sort(all)
	return slices.Compact(all)
}

// wrote is the register after a write of v that took effect when it had one of was.
func (r register) wrote(c Call, v string, was []string) register {
	if !c.Unsynced {
		return register{may: []string{v}}
	}
	return register{may: []string{v}, older: with(r.older, was...)}
}

// found is the register when it turned out to have one of may.
func (r register) found(may []string) (bool, register) {
	return len(may) > 0, register{may: may, older: r.older}
}

func (r register) step(c Call) (bool, register) {
	switch c.Name {
	case opCut:
		return true, register{may: with(r.may, r.older...)}
	case opGet:
		return r.found(r.are(c.Output))
	case opSet:
		return true, r.wrote(c, c.Input, r.may)
	case opDelete:
		return true, r.wrote(c, "", r.may)
	}
	old, next := cutCAS(c.Input)
	was, rest := r.are(old), slices.DeleteFunc(slices.Clone(r.may), func(v string) bool { return v == old })
	switch {
	case c.OK() && c.Output == "true":
		return len(was) > 0, r.wrote(c, next, was)
	case c.OK():
		return r.found(rest)
	case len(was) == 0:
		return true, r
	case len(rest) == 0:
		return true, r.wrote(c, next, was)
	default: // whether it swapped is as open as what was there
		return true, register{may: with(rest, next), older: with(r.older, old)}
	}
}

// are returns v if it may be what the register has.
func (r register) are(v string) []string {
	if slices.Contains(r.may, v) {
		return []string{v}
	}
	return nil
}

func (r register) String() string {
	text := strings.Join(r.may, " or ")
	if len(r.older) > 0 {
		text += fmt.Sprintf(" (not synced; before: %q)", r.older)
	}
	return text
}

// registerModel has the Call as input and output. A call without an answer may
// have had any.
var registerModel = porcupine.Model{
	Init: func() any { return register{may: []string{""}} },
	Step: func(state, input, output any) (bool, any) { return stepped(state.(register).step(input.(Call))) },
	Equal: func(a, b any) bool {
		x, y := a.(register), b.(register)
		return slices.Equal(x.may, y.may) && slices.Equal(x.older, y.older)
	},
	DescribeOperation: func(input, output any) string {
		c := input.(Call)
		return fmt.Sprintf("%s(%s) → %s%s", c.Name, c.Input, c.Output, c.Err)
	},
	DescribeState: func(state any) string { return state.(register).String() },
}

func stepped(ok bool, next register) (bool, any) { return ok, next }
