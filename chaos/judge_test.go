package chaos_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pebbleparty/pebbleparty/chaos"
)

// expect fails unless a verdict has a violation with the text; "" is none at all.
func expect(t *testing.T, v chaos.Verdict, text string) {
	t.Helper()
	all := strings.Join(v.Violations, "\n")
	if text == "" && all != "" {
		t.Errorf("violated: %s", all)
	}
	if text != "" && !strings.Contains(all, text) {
		t.Errorf("violations %q, want one with %q", all, text)
	}
}

// call is one that was answered between start and end; end 0 is never.
func call(lane, name, key, input, output string, start, end int64) chaos.Call {
	return chaos.Call{Op: chaos.Op{Name: name, Key: key, Input: input, Write: name != "get"}, Lane: lane, Start: start, End: end, Output: output}
}

func TestRegisters_Judge(t *testing.T) {
	for _, tc := range []struct {
		name  string
		calls []chaos.Call
		want  string
	}{
		{"in order", []chaos.Call{call("a", "set", "k", "1", "", 1, 2), call("b", "get", "k", "", "1", 3, 4)}, ""},
		{"a stale read", []chaos.Call{call("a", "set", "k", "1", "", 1, 2), call("b", "get", "k", "", "", 3, 4)}, "not linearizable"},
		{"a lost write", []chaos.Call{
			call("a", "set", "k", "1", "", 1, 2), call("a", "set", "k", "2", "", 3, 4), call("final", "get", "k", "", "1", 9, 10)}, "not linearizable"},
		{"seen and gone again", []chaos.Call{
			call("a", "set", "k", "1", "", 1, 0), call("b", "get", "k", "", "1", 3, 4), call("b", "get", "k", "", "", 5, 6)}, "not linearizable"},
		{"no answer, took effect late", []chaos.Call{
			call("a", "set", "k", "1", "", 1, 0), call("b", "get", "k", "", "", 3, 4), call("b", "get", "k", "", "1", 5, 6)}, ""},
		{"no answer, took effect twice", []chaos.Call{
			call("a", "set", "k", "1", "", 1, 0), call("b", "get", "k", "", "1", 3, 4), call("b", "set", "k", "2", "", 5, 6),
			call("b", "get", "k", "", "1", 7, 8)}, "not linearizable"},
		{"swapped", []chaos.Call{call("a", "cas", "k", "\t1", "true", 1, 2), call("b", "get", "k", "", "1", 3, 4)}, ""},
		{"swapped by two", []chaos.Call{call("a", "cas", "k", "\t1", "true", 1, 2), call("b", "cas", "k", "\t2", "true", 3, 4)}, "not linearizable"},
		{"not swapped though it was so", []chaos.Call{call("a", "cas", "k", "\t1", "false", 1, 2)}, "not linearizable"},
		{"a swap without an answer", []chaos.Call{call("a", "cas", "k", "\t1", "", 1, 0), call("b", "get", "k", "", "1", 3, 4)}, ""},
		{"deleted", []chaos.Call{call("a", "set", "k", "1", "", 1, 2), call("a", "delete", "k", "", "", 3, 4), call("b", "get", "k", "", "1", 5, 6)}, "not linearizable"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, chaos.JudgeRegisters(tc.calls), tc.want) })
	}
}

func TestBank_Judge(t *testing.T) {
	balances := func(change map[int]int) map[string]string {
		m := map[string]string{}
		for i := range 16 {
			m[fmt.Sprintf("bank/account/%02d", i)] = fmt.Sprint(1000 + change[i])
		}
		return m
	}
	move := call("a", "move", "r1", "0 1 5", "7", 1, 2)
	unanswered := call("a", "move", "r1", "0 1 5", "", 1, 0)
	receipt := map[string]string{"r1": "0 1 5"}
	for _, tc := range []struct {
		name     string
		calls    []chaos.Call
		receipts map[string]string
		balances map[string]string
		want     string
	}{
		{"moved", []chaos.Call{move}, receipt, balances(map[int]int{0: -5, 1: 5}), ""},
		{"lost", []chaos.Call{move}, nil, balances(nil), "was acknowledged"},
		{"no answer, and not moved", []chaos.Call{unanswered}, nil, balances(nil), ""},
		{"no answer, and moved", []chaos.Call{unanswered}, receipt, balances(map[int]int{0: -5, 1: 5}), ""},
		{"moved twice", []chaos.Call{move}, receipt, balances(map[int]int{0: -10, 1: 10}), "by the receipts"},
		{"half of it", []chaos.Call{move}, receipt, balances(map[int]int{0: -5}), "by the receipts"},
		{"from nobody", nil, receipt, balances(map[int]int{0: -5, 1: 5}), "nobody made it"},
		{"a total in between", []chaos.Call{call("b", "total-iterator", "", "", "15995", 1, 2)}, nil, balances(nil), "not 16000"},
		{"a total without an account", []chaos.Call{call("b", "total-snapshot", "", "", "15000 in 15 accounts", 1, 2)}, nil, balances(nil), "15 accounts"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, chaos.JudgeBank(tc.calls, tc.receipts, tc.balances), tc.want) })
	}
}

func TestLists_Judge(t *testing.T) {
	const first, second = "list/a/00000000", "list/a/00000001"
	log := []chaos.Seen{chaos.NewSeen(3, "set:"+first), chaos.NewSeen(5, "set:"+second)}
	acked := []chaos.Call{call("a", "append", first, "", "3", 1, 2), call("a", "append", second, "", "5", 3, 4)}
	note := func(texts ...string) (notes []chaos.Note) {
		for _, text := range texts {
			notes = append(notes, chaos.Note{Process: 1, Text: text})
		}
		return notes
	}
	for _, tc := range []struct {
		name  string
		calls []chaos.Call
		notes []chaos.Note
		log   []chaos.Seen
		want  string
	}{
		{"all well", acked, note("3 set:"+first, "5 set:"+second), log, ""},
		{"a subscriber that is behind", acked, note("3 set:" + first), log, ""},
		{"a gap", acked, note("5 set:" + second), log, "where the log has"},
		{"a repeat", acked, note("3 set:"+first, "3 set:"+first), log, "where the log has"},
		{"another key", acked, note("3 set:" + second), log, "where the log has"},
		{"an event that is not in the log", acked, note("3 set:"+first, "5 set:"+second, "6 set:x"), log, "nothing"},
		{"lost", acked, nil, log[:1], "not at all"},
		{"acknowledged under another number", []chaos.Call{acked[0], call("a", "append", second, "", "4", 3, 4)}, nil, log, "under 5"},
		{"twice", acked, nil, append(log[:2:2], chaos.NewSeen(6, "set:"+second)), "again under 6"},
		{"out of order", acked, nil, []chaos.Seen{chaos.NewSeen(3, "set:"+second), chaos.NewSeen(5, "set:"+first)}, "should come"},
		{"from nobody", acked[:1], nil, log, "nobody wrote it"},
		{"no answer", []chaos.Call{acked[0], call("a", "append", second, "", "", 3, 0)}, nil, log, ""},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, chaos.JudgeLists(tc.calls, tc.notes, tc.log), tc.want) })
	}
}

func TestLists_Walk(t *testing.T) {
	const a0, a1, a2, b0 = "list/a/00000000", "list/a/00000001", "list/a/00000002", "list/b/00000000"
	for _, tc := range []struct {
		name, way string
		keys      []string
		want      string
	}{
		{"nothing there", "forward", nil, ""},
		{"all", "forward", []string{a0, a1, a2, b0}, "a=3 b=1"},
		{"a gap", "forward", []string{a0, a2}, a2 + " comes where 1 should"},
		{"a repeat", "forward", []string{a0, a1, a1}, a1 + " comes where 2 should"},
		{"a repeat that begins another list", "forward", []string{a0, b0, a1, b0}, b0 + " comes where 1 should"},
		{"without its beginning", "forward", []string{a1}, a1 + " comes where 0 should"},
		{"no entry", "forward", []string{"list/a"}, "of no list"},
		{"all, descending", "backward", []string{b0, a2, a1, a0}, "a=3 b=1"},
		{"a gap, descending", "backward", []string{a2, a0}, a0 + " comes where 1 should"},
		{"a repeat, descending", "backward", []string{a2, a2}, a2 + " comes where 1 should"},
		{"not to its beginning", "backward", []string{a2, a1}, "a ends at 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := chaos.Walk(tc.way, tc.keys...); got != tc.want && (tc.want == "" || !strings.Contains(got, tc.want)) {
				t.Errorf("it reports %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLists_JudgeWalks(t *testing.T) {
	const first, second, third = "list/a/00000000", "list/a/00000001", "list/a/00000002"
	appends := []chaos.Call{
		call("a", "append", first, "", "3", 1, 2), call("a", "append", second, "", "5", 3, 20), call("a", "append", third, "", "", 30, 0)}
	for _, tc := range []struct {
		name       string
		output     string
		start, end int64
		want       string
	}{
		{"what was acknowledged before", "a=1", 5, 10, ""},
		{"and what was under way", "a=2", 5, 10, ""},
		{"less", "", 5, 10, "found 0 entries of a, which had 1 before and 2 after"},
		{"more", "a=3", 5, 10, "found 3 entries"},
		{"later", "a=2", 25, 28, ""},
		{"later, less", "a=1", 25, 28, "found 1 entries"},
		{"what was never acknowledged", "a=3", 31, 40, ""},
		{"a fault", first + " comes where 1 should", 5, 10, "comes where 1 should"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			walk := chaos.Call{Op: chaos.Op{Name: "walk", Key: "list/", Input: "forward"}, Start: tc.start, End: tc.end, Output: tc.output}
			expect(t, chaos.JudgeWalks(append(appends, walk)), tc.want)
			walk.Key = "list/other" // these lists are none of its business
			walk.Output = ""
			expect(t, chaos.JudgeWalks(append(appends, walk)), "")
		})
	}
}

func TestCalls_Judge(t *testing.T) {
	p := chaos.Plan{CallTimeout: time.Second, Patience: time.Second}
	late := []chaos.Call{call("a", "get", "k", "", "", 0, int64(5*time.Second))}
	stopped := []chaos.Span{{PID: 1, State: chaos.Stopped, From: int64(time.Second), To: int64(9*time.Second) / 2}}
	expect(t, chaos.JudgeCalls(late, nil, nil, p), "took 5s")
	expect(t, chaos.JudgeCalls(late, nil, stopped, p), "")
	hangs := []chaos.Call{call("a", "get", "k", "", "", 10, 0)}
	life := []chaos.Span{{PID: 1, To: 5}, {PID: 2, From: 6, To: 8}, {PID: 2, From: 8, To: int64(3 * time.Second)}, {PID: 3, From: int64(4 * time.Second), To: int64(9 * time.Second)}}
	expect(t, chaos.JudgeCalls(hangs, nil, life, p), "had no answer after 3s")
	life[2].To = int64(time.Second)
	expect(t, chaos.JudgeCalls(hangs, nil, life, p), "")
	expect(t, chaos.JudgeCalls(nil, []string{"process 1: leader lost"}, nil, p), "leader lost")
}

// A time without writes is charged to the fault that it began with.
func TestReport_Availability(t *testing.T) {
	calls := []chaos.Call{
		call("a", "set", "k", "1", "", 5, 10), call("a", "set", "k", "1", "", 11, 20),
		call("a", "set", "k", "1", "", 21, 70), call("a", "set", "k", "1", "", 71, 75),
		call("a", "set", "k", "1", "", 76, 99),
	}
	r := chaos.Measured(&chaos.Report{Duration: 100,
		Faults: []chaos.Done{{Kind: chaos.KillLeader, At: 30}, {Kind: chaos.KillAll, At: 60}, {Kind: chaos.Resign, At: 74}},
		Spans: []chaos.Span{{State: chaos.Leading, Term: 1, From: -5, To: 30}, {State: chaos.Leading, Term: 2, From: 65, To: 68},
			{State: chaos.Leading, Term: 2, From: 80, To: 100}}}, calls, nil)
	got := fmt.Sprint(r.Faults[0].Gap, r.Faults[1].Gap, r.Faults[2].Gap, r.LongestGap, r.Faults[1].Recovery, r.Faults[2].Recovery)
	if want := "50 0 24 50 15 25"; got != want {
		t.Errorf("gaps of the three faults, longest, recoveries: %s, want %s", got, want)
	}
	// Term 2 began after the second fault; it went on after the third.
	if r.Leaders != 2 || fmt.Sprint(r.Failovers) != "[15]" {
		t.Errorf("%d terms, failovers %v", r.Leaders, r.Failovers)
	}
	if got, want := fmt.Sprint(r.Faults[0].GapAt, r.Faults[2].GapAt), "20 75"; got != want {
		t.Errorf("gaps began at %s, want %s", got, want)
	}
}

// One who has never heard of it reads what a fault is.
func TestReport_DescribesFaults(t *testing.T) {
	for _, kind := range chaos.AllFaults() {
		if !chaos.Described(kind) {
			t.Errorf("%s: no words and no mark for it", kind)
		}
	}
}

// A power cut takes writes that were not synced, back to the last that was.
func TestRegisters_JudgePowerCuts(t *testing.T) {
	unsynced := func(c chaos.Call) chaos.Call { c.Unsynced = true; return c }
	set := func(v string, at int64) chaos.Call { return call("a", "set", "k", v, "", at, at+1) }
	get := func(v string, at int64) chaos.Call { return call("b", "get", "k", "", v, at, at+1) }
	for _, tc := range []struct {
		name  string
		calls []chaos.Call
		want  string
	}{
		{"not synced, lost", []chaos.Call{set("1", 1), unsynced(set("2", 3)), get("2", 5), get("1", 11)}, ""},
		{"not synced, not lost", []chaos.Call{set("1", 1), unsynced(set("2", 3)), get("2", 11)}, ""},
		{"synced, lost", []chaos.Call{set("1", 1), set("2", 3), get("1", 11)}, "not linearizable"},
		{"synced by the next", []chaos.Call{unsynced(set("1", 1)), set("2", 3), get("1", 11)}, "not linearizable"},
		{"lost without a cut", []chaos.Call{set("1", 1), unsynced(set("2", 3)), get("1", 5)}, "not linearizable"},
		{"lost, then there again", []chaos.Call{set("1", 1), unsynced(set("2", 3)), get("1", 11), get("2", 13)}, "not linearizable"},
		{"lost by the second cut", []chaos.Call{set("1", 1), unsynced(set("2", 3)), get("2", 11), get("1", 21)}, "not linearizable"},
		{"back by two", []chaos.Call{set("1", 1), unsynced(set("2", 3)), unsynced(set("3", 5)), get("1", 11)}, ""},
		{"a deletion lost", []chaos.Call{set("1", 1), unsynced(call("a", "delete", "k", "", "", 3, 4)), get("1", 11)}, ""},
		{"swapped, lost", []chaos.Call{set("1", 1), unsynced(call("a", "cas", "k", "1\t2", "true", 3, 4)), get("1", 11)}, ""},
		{"swapped on what is left", []chaos.Call{set("1", 1), unsynced(set("2", 3)), call("b", "cas", "k", "1\t4", "true", 11, 12), get("4", 13)}, ""},
		{"not swapped, so not left", []chaos.Call{set("1", 1), unsynced(set("2", 3)), call("b", "cas", "k", "1\t4", "false", 11, 12), get("1", 13)}, "not linearizable"},
		{"a swap without an answer on either", []chaos.Call{
			set("1", 1), unsynced(set("2", 3)), call("b", "cas", "k", "1\t4", "", 11, 0), get("4", 13)}, ""},
		{"a refused write", []chaos.Call{{Op: set("1", 1).Op, Lane: "a", Start: 1, End: 2, Err: "disk full", Refused: true}, get("1", 3)}, "not linearizable"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, chaos.JudgeRegistersWithCuts(tc.calls, 10, 20), tc.want) })
	}
}

func TestTail_Judge(t *testing.T) {
	write := func(key string, start int64, unsynced bool) chaos.Call {
		c := call("a", "write", key, "", "", start, start+1)
		c.Unsynced = unsynced
		return c
	}
	unanswered := write("3", 5, true)
	unanswered.End = 0
	calls := []chaos.Call{write("1", 1, true), write("2", 3, true), unanswered, write("4", 31, true)}
	for _, tc := range []struct {
		name  string
		calls []chaos.Call
		there []string
		want  string
	}{
		{"all there", calls, []string{"1", "2", "3", "4"}, ""},
		{"lost from the end", calls, []string{"1", "4"}, ""},
		{"all lost", calls, []string{"4"}, ""},
		{"lost from the middle", calls, []string{"2", "4"}, "2, which came later"},
		{"lost before what nobody was told of", calls, []string{"1", "3", "4"}, "3, which came later"},
		{"lost without a cut", calls, []string{"1", "2", "3"}, "no power was cut since"},
		{"synced and lost", []chaos.Call{write("1", 1, false)}, nil, "it was synced"},
		{"refused and there", []chaos.Call{{Op: chaos.Op{Key: "1"}, Start: 1, End: 2, Err: "disk full", Refused: true}}, []string{"1"}, "was refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			there := map[string]string{}
			for _, key := range tc.there {
				there[key] = "a"
			}
			expect(t, chaos.JudgeTail(tc.calls, []int64{10, 20}, there), tc.want)
		})
	}
}

// A call that fails for the disk needs a disk that failed.
func TestCalls_JudgeRefused(t *testing.T) {
	c := call("a", "set", "k", "1", "", int64(time.Second), int64(time.Second)+1)
	full := chaos.Done{Kind: chaos.DiskFull, At: int64(time.Second) / 2, Until: int64(time.Second) * 3 / 4}
	expect(t, chaos.JudgeFailedCall(c, full), "")
	expect(t, chaos.JudgeFailedCall(c), "no disk did")
	expect(t, chaos.JudgeFailedCall(c, chaos.Done{Kind: chaos.KillAll, At: full.At, Until: full.Until}), "no disk did")
	c.Start, c.End = int64(time.Minute), int64(time.Minute)+1
	expect(t, chaos.JudgeFailedCall(c, full), "no disk did")
}

// What could not be judged is no violation, and no proof: it is said everywhere.
func TestReport_Outcome(t *testing.T) {
	held, open := chaos.Verdict{Name: "bank", Detail: "fine"}, chaos.Verdict{Name: "registers", Detail: "some are fine", Undecided: "3 of 9 keys"}
	broken := chaos.Verdict{Name: "lists", Violations: []string{"gone"}}
	for _, tc := range []struct {
		verdicts []chaos.Verdict
		want     chaos.Outcome
		says     string // the summary
		title    string
	}{
		{[]chaos.Verdict{held}, chaos.Held, "bank       ok", "all promises held"},
		{[]chaos.Verdict{held, open}, chaos.Undecided, "undecided: registers.", "held, as far as it could be judged"},
		{[]chaos.Verdict{broken, open}, chaos.Violated, "undecided: registers.", "VIOLATED"},
	} {
		r := chaos.Measured(&chaos.Report{Verdicts: tc.verdicts}, nil, nil)
		if got := r.Outcome(); got != tc.want || r.OK() == (tc.want == chaos.Violated) {
			t.Errorf("outcome %s, want %s; OK %v", got, tc.want, r.OK())
		}
		if got := r.Summary(); !strings.Contains(got, tc.says) {
			t.Errorf("%s: the summary says\n%s", tc.want, got)
		}
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		var data struct{ Outcome chaos.Outcome }
		if err := json.Unmarshal(b.Bytes(), &data); err != nil || data.Outcome != tc.want {
			t.Errorf("%s: the JSON says %q (%v)", tc.want, data.Outcome, err)
		}
		b.Reset()
		if err := r.WriteHTML(&b, ""); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), tc.title+"</title>") {
			t.Errorf("%s: the page has no title %q", tc.want, tc.title)
		}
	}
}

// One key that takes too long to judge leaves time for the others.
func TestRegisters_HardKeyIsUndecided(t *testing.T) {
	calls := []chaos.Call{call("z", "set", "easy", "1", "", 1, 2), call("z", "get", "easy", "", "2", 3, 4)}
	for i := range 60 {
		lane := fmt.Sprint(i)
		calls = append(calls, call(lane, "cas", "hard", fmt.Sprintf("%d\t%d", i, i+1), "", 1, 0), call(lane, "set", "hard", lane, "", 1, 900))
	}
	calls = append(calls, call("z", "get", "hard", "", "none", 1000, 1001))
	v := chaos.JudgeRegistersWithin(calls, time.Second)
	expect(t, v, "easy: 2 calls are not linearizable")
	if v.Undecided != "1 of 2 keys could not be judged within 1s" {
		t.Errorf("undecided: %q", v.Undecided)
	}
}
