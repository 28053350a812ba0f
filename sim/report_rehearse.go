package sim

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText prints the rehearsal for an operator: the answer first.
func (r *Rehearsal) WriteText(w io.Writer, color bool) {
	word, code := "GO", "32"
	if !r.Go {
		word, code = "NO-GO", "31"
	}
	if color {
		word = "\x1b[1;" + code + "m" + word + "\x1b[0m"
	}
	as := r.Variants[0]
	fmt.Fprintf(w, "%s  %s %s: %d of %d instances on %s, %s typically, %s at worst as it is\n",
		word, r.Op, r.Target, r.Fleet.Targeted, r.Fleet.Instances, plural(r.Fleet.Hosts, "host"), round(as.P50), round(as.Worst))
	for _, reason := range r.Reasons {
		fmt.Fprintf(w, "  - %s\n", reason)
	}
	fmt.Fprintf(w, "\n%-16s %6s %9s %9s %9s %8s  %s\n", "FAULTS", "RUNS", "P50", "P95", "WORST", "ALL OK", "BROKEN PROMISES")
	for _, v := range r.Variants {
		broken := "none"
		if len(v.Broken) > 0 {
			var parts []string
			for _, b := range v.Broken {
				parts = append(parts, fmt.Sprintf("%s %s (%s to %s)", b.Invariant, percent(b.Share), percent(b.Low), percent(b.High)))
			}
			broken = strings.Join(parts, ", ")
		}
		fmt.Fprintf(w, "%-16s %6d %9s %9s %9s %8s  %s\n", v.Faults, v.Seeds, round(v.P50), round(v.P95), round(v.Worst), fmt.Sprintf("%d/%d", v.Clean, v.Seeds), broken)
	}
	fmt.Fprintf(w, "\nfewest instances up at one moment, of all runs:\n%-16s", "FAULTS")
	for _, l := range as.Live {
		fmt.Fprintf(w, " %22s", l.Tier)
	}
	fmt.Fprintln(w)
	for _, v := range r.Variants {
		fmt.Fprintf(w, "%-16s", v.Faults)
		for _, l := range v.Live {
			at := ""
			if l.Low < l.Start {
				at = fmt.Sprintf(" at %+.0fs", (l.At - rehearsedAt).Seconds())
			}
			fmt.Fprintf(w, " %22s", fmt.Sprintf("%d of %d%s", l.Low, l.Total, at))
		}
		fmt.Fprintln(w)
	}
	r.names(w)
	fmt.Fprintf(w, "\nworst run: seed %d under %s, which %s (%s)\n", r.Worst.Seed, r.Worst.Faults, r.Worst.Why, round(r.Worst.Took))
	fmt.Fprintf(w, "reproduce: %s\n", r.Worst.Reproduce)
	if bound, _ := wilsonOfNone(r); bound != "" {
		fmt.Fprintln(w, bound)
	}
}

// names says who is likely to be silent, unfinished or failed.
func (r *Rehearsal) names(w io.Writer) {
	for _, v := range r.Variants {
		for _, list := range []struct {
			what  string
			names []NameShare
		}{{"silent or unfinished", v.Silent}, {"failed", v.Failed}} {
			if len(list.names) == 0 {
				continue
			}
			var parts []string
			for _, n := range list.names[:min(4, len(list.names))] {
				parts = append(parts, fmt.Sprintf("%s %s", n.Instance, percent(n.Share)))
			}
			more := ""
			if len(list.names) > 4 {
				more = ", …"
			}
			fmt.Fprintf(w, "%s under %s: %s%s\n", list.what, v.Faults, strings.Join(parts, ", "), more)
		}
	}
}

// wilsonOfNone says how much an unbroken promise is worth: with n clean runs a
// breach in fewer than a few percent of runs cannot be ruled out.
func wilsonOfNone(r *Rehearsal) (string, float64) {
	n := 0
	for _, v := range r.Variants {
		n += v.Seeds
		if len(v.Broken) > 0 {
			return "", 0
		}
	}
	_, high := Wilson(0, n)
	return fmt.Sprintf("no promise was broken in %d runs: a breach is in fewer than %s of runs like these (95 %% Wilson interval)", n, percent(high)), high
}

// WriteWorst runs the worst seed again and prints its timeline, from the op on.
func (r *Rehearsal) WriteWorst(ctx context.Context, w io.Writer) error {
	run, events, err := RunSeed(ctx, r.Worst.scenario, r.Worst.Seed, SeedOptions{})
	if err != nil {
		return err
	}
	var shown []Event
	for _, e := range events {
		switch e.Kind {
		case EvMember, EvHeartbeat, EvDelivered, EvFlock, EvFunlock, EvLog, EvState, EvKeyLeft, EvVerdict, EvUnitStarted, EvRestartFinished:
			continue
		}
		if e.T > rehearsedAt-10*time.Second {
			shown = append(shown, e)
		}
	}
	fmt.Fprintf(w, "\ntimeline of the worst run (%d of %d events):\n", len(shown), len(events))
	return Timeline(w, shown, run.Verdict)
}

// WorstHTML runs the worst seed again and writes its page.
func (r *Rehearsal) WorstHTML(ctx context.Context, w io.Writer) error {
	run, events, err := RunSeed(ctx, r.Worst.scenario, r.Worst.Seed, SeedOptions{})
	if err != nil {
		return err
	}
	return WriteHTML(w, r.Worst.scenario, r.Worst.Seed, events, run.Verdict)
}
