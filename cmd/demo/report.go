package main

import (
	"bufio"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"
)

// report prints what happened, as far as it went.
func (j *job) report(w *bufio.Writer) error {
	j.reportReigns(w)
	j.reportFailovers(w)
	took := j.took
	if took == 0 { // it did not get to the end
		took = time.Since(j.start)
	}
	fmt.Fprintf(w, "\nLoaded %d of %d batches with %s in %.2f s: %s/s, %d kills, %d batches of killed processes written again.\n",
		j.acked, len(j.tasks), megabytes(j.bytes), took.Seconds(), megabytes(int64(float64(j.bytes)/took.Seconds())),
		len(j.past.failovers), j.again)
	if c := j.found; c != nil {
		fmt.Fprintf(w, "Compared %d keys, %s, with %d files in %.2f s: %d missing, %d extra, %d different.\n",
			c.keys, megabytes(c.bytes), len(j.files.files), c.took.Seconds(), len(c.missing), len(c.extra), len(c.different))
	}
	fmt.Fprintf(w, "Altogether %.2f s.\n", time.Since(j.start).Seconds())
	return nil
}

func (j *job) reportReigns(w *bufio.Writer) {
	fmt.Fprint(w, "\nWho led\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "term\tpid\tfrom\tto\t ended\t")
	slices.SortStableFunc(j.past.reigns, func(a, b reign) int { return a.from.Compare(b.from) })
	for _, r := range j.past.reigns {
		to, end := "", " leads"
		if !r.to.IsZero() {
			to, end = j.seconds(r.to), " "+r.end
		}
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\t%s\t\n", r.term, r.pid, j.seconds(r.from), to, end)
	}
	_ = table.Flush()
}

func (j *job) reportFailovers(w *bufio.Writer) {
	if len(j.past.failovers) == 0 {
		return
	}
	fmt.Fprint(w, "\nFrom a kill to an acknowledged write\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "killed\tpid\tterm\tfirst process\tlast process\t")
	var firsts, lasts []time.Duration
	for _, f := range j.past.failovers {
		if !f.over() {
			fmt.Fprintf(table, "%s\t%d\t%d\t\tnot all wrote again\t\n", j.seconds(f.at), f.pid, f.term)
			continue
		}
		first, last := f.took()
		firsts, lasts = append(firsts, first), append(lasts, last)
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t\n", j.seconds(f.at), f.pid, f.term, milliseconds(first), milliseconds(last))
	}
	if len(firsts) > 1 {
		fmt.Fprintf(table, "\t\tmedian\t%s\t%s\t\n", milliseconds(median(firsts)), milliseconds(median(lasts)))
	}
	_ = table.Flush()
}

func (j *job) seconds(at time.Time) string { return fmt.Sprintf("%.3f s", at.Sub(j.start).Seconds()) }

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func median(of []time.Duration) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return (of[(len(of)-1)/2] + of[len(of)/2]) / 2
}
