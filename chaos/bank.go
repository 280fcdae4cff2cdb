package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/pebbleparty/pebbleparty/party"
)

// Bank moves money between accounts: each batch takes from one, gives to another
// and leaves a receipt. The moves are Merges, of the merger of StandardOptions,
// which take effect wrongly when they take effect twice. Lane 0 of each process
// adds the accounts up, by an iterator or a snapshot; the others move.
type Bank struct{}

const (
	bankAccounts = 16
	bankEach     = 1000
	bankAccount  = "bank/account/"
	bankReceipt  = "bank/receipt/"
)

// Name returns "bank".
func (Bank) Name() string { return "bank" }

func (Bank) firstReads() {}

// Prepare opens the accounts.
func (Bank) Prepare(ctx context.Context, db *party.DB) error {
	var b pebble.Batch
	for i := range bankAccounts {
		if err := b.Set(accountKey(i), []byte(strconv.Itoa(bankEach)), nil); err != nil {
			return err
		}
	}
	_, err := db.Apply(ctx, &b, pebble.Sync)
	return err
}

func accountKey(i int) []byte { return fmt.Appendf(nil, "%s%02d", bankAccount, i) }

// Work moves money once or adds it up once.
func (b Bank) Work(ctx context.Context, l *Lane) error {
	if l.Index == 0 {
		return b.audit(ctx, l)
	}
	n, _ := l.State.(int)
	l.State = n + 1
	from := l.Rand.IntN(bankAccounts)
	to := (from + 1 + l.Rand.IntN(bankAccounts-1)) % bankAccounts
	amount := 1 + l.Rand.IntN(9)
	receipt := fmt.Sprintf("%s%s/%d", bankReceipt, l.ID, n)
	what := fmt.Sprintf("%d %d %d", from, to, amount)
	var batch pebble.Batch
	err := errors.Join(
		batch.Merge(accountKey(from), []byte(strconv.Itoa(-amount)), nil),
		batch.Merge(accountKey(to), []byte(strconv.Itoa(amount)), nil),
		batch.Set([]byte(receipt), []byte(what), nil))
	if err != nil {
		return err
	}
	return l.Do(ctx, Op{Name: "move", Key: receipt, Input: what, Write: true}, func(ctx context.Context) (string, error) {
		seq, err := l.DB.Apply(ctx, &batch, pebble.Sync)
		return strconv.FormatUint(seq, 10), err
	})
}

// audit adds up. Now and then it takes a snapshot, which costs more.
func (Bank) audit(ctx context.Context, l *Lane) error {
	if l.Rand.IntN(16) == 0 {
		return l.Do(ctx, Op{Name: "total-snapshot"}, func(ctx context.Context) (string, error) {
			s, err := l.DB.NewSnapshot(ctx)
			if err != nil {
				return "", err
			}
			it, err := s.NewIter(ctx, bankRange())
			if err != nil {
				return "", errors.Join(err, s.Close())
			}
			total, err := addUp(it)
			return total, errors.Join(err, s.Close())
		})
	}
	return l.Do(ctx, Op{Name: "total-iterator"}, func(ctx context.Context) (string, error) {
		it, err := l.DB.NewIter(ctx, bankRange())
		if err != nil {
			return "", err
		}
		total, err := addUp(it)
		if errors.Is(err, party.ErrSnapshotLost) {
			return "", nil // the leader died under it, which Strict has it say
		}
		return total, err
	})
}

func bankRange() *party.IterOptions {
	return &party.IterOptions{LowerBound: []byte(bankAccount), UpperBound: after(bankAccount), Strict: true}
}

// after is the first key behind all that begin with prefix.
func after(prefix string) []byte {
	b := []byte(prefix)
	b[len(b)-1]++ // no prefix here ends with 0xff
	return b
}

// addUp returns the total, and closes the iterator.
func addUp(it *party.Iterator) (string, error) {
	total, accounts := 0, 0
	var faults []error
	for _, v := range it.All() {
		n, err := strconv.Atoi(string(v))
		faults = append(faults, err)
		total, accounts = total+n, accounts+1
	}
	if err := it.Close(); err != nil {
		return "", err
	}
	if accounts != bankAccounts {
		return fmt.Sprintf("%d in %d accounts", total, accounts), errors.Join(faults...)
	}
	return strconv.Itoa(total), errors.Join(faults...)
}

// Check looks at the totals that were read, and compares the accounts with the
// receipts: each move that was acknowledged has one, none is there that nobody
// made, and every account has what they add up to.
func (Bank) Check(ctx context.Context, e *Evidence) Verdict {
	receipts, err := e.scan(ctx, bankReceipt)
	if err != nil {
		return Verdict{Violations: []string{err.Error()}}
	}
	accounts, err := e.scan(ctx, bankAccount)
	if err != nil {
		return Verdict{Violations: []string{err.Error()}}
	}
	return judgeBank(e.Calls, receipts, accounts)
}

// judgeBank compares what was done and seen with what is there.
func judgeBank(calls []Call, receipts, accounts map[string]string) Verdict {
	var v Verdict
	totals, moves := 0, map[string]bool{}
	for _, c := range calls {
		switch {
		case c.Name == "move":
			moves[c.Key] = !c.Refused
			if got, ok := receipts[c.Key]; c.OK() && (!ok || got != c.Input) {
				v.violate(fmt.Sprintf("%s was acknowledged at %s and its receipt says %q, not %q", c.Key, since(c.End), got, c.Input))
			}
		case c.OK() && c.Output != "":
			totals++
			if want := strconv.Itoa(bankAccounts * bankEach); c.Output != want {
				v.violate(fmt.Sprintf("%s by process %d at %s: %s, not %s", c.Name, c.Process, since(c.Start), c.Output, want))
			}
		}
	}
	var want [bankAccounts]int
	for i := range want {
		want[i] = bankEach
	}
	for _, key := range slices.Sorted(maps.Keys(receipts)) {
		if !moves[key] {
			v.violate(fmt.Sprintf("%s is there and nobody made it, or it was refused", key))
		}
		var from, to, amount int
		if _, err := fmt.Sscanf(receipts[key], "%d %d %d", &from, &to, &amount); err != nil || from < 0 || from >= bankAccounts || to < 0 || to >= bankAccounts {
			v.violate(fmt.Sprintf("%s says %q", key, receipts[key]))
			continue
		}
		want[from] -= amount
		want[to] += amount
	}
	for i := range want {
		if got := accounts[string(accountKey(i))]; got != strconv.Itoa(want[i]) {
			v.violate(fmt.Sprintf("%s has %q, and %d by the receipts", accountKey(i), got, want[i]))
		}
	}
	v.Detail = fmt.Sprintf("%d moves took effect once, %d totals were right", len(receipts), totals)
	return v
}

// scan returns the keys that begin with prefix, and their values.
func (e *Evidence) scan(ctx context.Context, prefix string) (map[string]string, error) {
	it, err := e.DB.NewIter(ctx, &party.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for k, v := range it.All() {
		m[string(k)] = string(v)
	}
	return m, it.Close()
}

// cutCAS is the input of a compare-and-swap.
func cutCAS(input string) (old, next string) {
	old, next, _ = strings.Cut(input, "\t")
	return old, next
}

// StandardOptions returns the options that the workloads here need: a merger
// that adds decimal numbers, and a log that is kept whole.
func StandardOptions() *party.Options {
	return &party.Options{
		Pebble:    &pebble.Options{Merger: &pebble.Merger{Name: "pebbleparty.chaos.sum", Merge: mergeSum}},
		Retention: party.Retention{MaxBytes: -1},
	}
}

// sum is a number that is being merged.
type sum int

func mergeSum(_, value []byte) (pebble.ValueMerger, error) {
	var s sum
	return &s, s.add(value)
}

func (s *sum) add(value []byte) error {
	n, err := strconv.Atoi(string(value))
	*s += sum(n)
	return err
}

func (s *sum) MergeNewer(value []byte) error { return s.add(value) }
func (s *sum) MergeOlder(value []byte) error { return s.add(value) }

func (s *sum) Finish(bool) ([]byte, io.Closer, error) {
	return []byte(strconv.Itoa(int(*s))), nil, nil
}
