package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).servicesCmd) }

type servicesFlags struct {
	watch    bool
	behind   bool
	interval time.Duration
}

func (a *app) servicesCmd() *cobra.Command {
	var f servicesFlags
	cmd := &cobra.Command{
		Use: "services [TARGET]", Short: "The roster: who is there, in what state, on what revision",
		Long: `One line an instance: where it runs, its state, its revision and what is the
matter with it. On a terminal the table leaves out what does not fit; -o wide
leaves out nothing. --watch shows who is in trouble first when not all fit.`,
		Example: `  sgfleet services
  sgfleet services web -o wide
  sgfleet services --behind            runs another revision than its checkout has
  sgfleet services --watch
  sgfleet services -o json > roster.json`,
		Args: countArgs(0, 1, "at most one TARGET"), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.interval < 100*time.Millisecond {
				return usagef("--interval %v: want at least 100ms", f.interval)
			}
			return a.services(cmd.Context(), args, f)
		},
	}
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "show it again every --interval")
	cmd.Flags().BoolVar(&f.behind, "behind", false, "only those that run another revision than their checkout is at")
	f.interval = 2 * time.Second
	cmd.Flags().Var(durationFlag{&f.interval}, "interval", "of --watch")
	return cmd
}

func (a *app) services(ctx context.Context, args []string, f servicesFlags) error {
	cfg, c, err := a.loadAndConnect()
	if err != nil {
		return err
	}
	defer c.Close()
	if f.watch {
		return a.watchRoster(ctx, cfg, c, args, f)
	}
	r, err := a.roster(ctx, cfg, c, args, f.behind)
	if err != nil {
		return err
	}
	a.warn(r.notes...)
	cols := 0
	if cli.IsTerminal(a.stdout) {
		cols, _ = cli.Size(a.stdout)
	}
	return a.printRoster(r, a.stdout, cols)
}

// rosterView is what of the registry is to be shown.
type rosterView struct {
	fleet.Registry
	entries []fleet.Entry
	notes   []string // what else there is to say
}

// roster reads the registry and picks what target selects.
func (a *app) roster(ctx context.Context, cfg *fleet.Config, c *control.Client, args []string, behind bool) (rosterView, error) {
	var r rosterView
	var err error
	if r.Registry, err = a.readRegistry(ctx, cfg, c); err != nil {
		return r, err
	}
	if len(r.Beats) == 0 {
		return r, &cli.Error{
			Code: exitNobody, Err: fmt.Errorf("no instance is known: no daemon has sent a heartbeat"),
			Hint: "Start one with 'sgfleet daemon', and see that both use the same Redis and key_prefix ('sgfleet config view --sources redis key_prefix').",
		}
	}
	selected := func(fleet.Member) bool { return true }
	if len(args) > 0 {
		target, err := checkedTarget(args[0], cfg, r.Registry)
		if err != nil {
			return r, err
		}
		selected = target.Match
	}
	for _, e := range r.Entries() {
		m, err := e.Member()
		if err == nil && selected(m) && (!behind || e.Behind) {
			r.entries = append(r.entries, e)
		}
	}
	r.notes = malformed(r.Registry)
	if len(r.entries) == 0 && behind {
		r.notes = append(r.notes, "nobody is behind")
	}
	return r, nil
}

// printRoster writes r as the output format wants it; a table's lines are at
// most cols wide, 0 for any width.
func (a *app) printRoster(r rosterView, w io.Writer, cols int) error {
	switch a.flags.output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r.Roster(r.entries))
	case "jsonl":
		enc := json.NewEncoder(w)
		for _, e := range r.entries {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, e := range r.entries {
			if _, err := fmt.Fprintln(w, e.Instance); err != nil {
				return err
			}
		}
		return nil
	case "wide":
		return wideRoster(r.entries, w)
	}
	for _, line := range append(a.rosterTable(r.entries, cols), a.holdLines(r.Registry, cols)...) {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// rosterTable is the table in colour, the headings first.
func (a *app) rosterTable(entries []fleet.Entry, cols int) []string {
	if len(entries) == 0 {
		return nil
	}
	lines := fleet.FormatRosterTable(entries, cols)
	lines[0] = a.paint(a.stdout, dim, lines[0])
	for i, e := range entries {
		switch {
		case e.State == fleet.StateDown || e.State == "failed":
			lines[i+1] = a.paint(a.stdout, red, lines[i+1])
		case e.Trouble():
			lines[i+1] = a.paint(a.stdout, yellow, lines[i+1])
		}
	}
	return lines
}

func (a *app) holdLines(reg fleet.Registry, cols int) []string {
	var lines []string
	for _, h := range reg.Holds {
		if h.Active(reg.Now) {
			line := clean("hold on " + h.Target + ": " + h.String())
			if cols > 0 {
				line = clip(line, cols)
			}
			lines = append(lines, a.paint(a.stdout, yellow, line))
		}
	}
	return lines
}

// wideRoster is the table with what an operator needs less often.
func wideRoster(entries []fleet.Entry, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "INSTANCE\tTIER\tUNIT\tSTATE\tRESULT\tRESTARTS\tRUNNING\tCHECKOUT\tUPTIME\tLAST SEEN\tDIRECTORY\tSGFLEET\tMODE\tCONTROLLED BY\tLAST OP\tNOTES")
	for _, e := range entries {
		uptime, seen := "", fleet.Humane(time.Duration(e.LastSeenMS)*time.Millisecond)+" ago"
		if e.UptimeMS > 0 {
			uptime = fleet.Humane(time.Duration(e.UptimeMS) * time.Millisecond)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%.9s\t%.9s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Instance, e.Tier, e.Unit, e.State, e.Result, e.NRestarts,
			e.RunningRevision, e.CheckoutRevision, uptime, seen, e.Checkout, e.Version, e.Mode, e.ControlledBy, e.LastOp, clean(strings.Join(e.Notes, ", ")))
	}
	return t.Flush()
}
