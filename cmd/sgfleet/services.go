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
	cmd.Flags().DurationVar(&f.interval, "interval", 2*time.Second, "of --watch")
	return cmd
}

func (a *app) services(ctx context.Context, args []string, f servicesFlags) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	c, err := a.connect(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if !f.watch {
		return a.roster(ctx, cfg, c, args, f.behind, a.stdout)
	}
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for {
		var page strings.Builder
		err := a.roster(ctx, cfg, c, args, f.behind, &page)
		if ctx.Err() != nil {
			return &codeError{code: exitInterrupt}
		}
		if err != nil { // Redis may come back, and a service appear
			fmt.Fprintf(&page, "%v\n", err)
		}
		if isTerminal(a.stdout) {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
		}
		if _, err := io.WriteString(a.stdout, page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return &codeError{code: exitInterrupt}
		case <-tick.C:
		}
	}
}

// roster reads the registry and writes what target selects to w.
func (a *app) roster(ctx context.Context, cfg *fleet.Config, c *control.Client, args []string, behind bool, w io.Writer) error {
	reg, err := a.registry(ctx, cfg, c)
	if err != nil {
		return err
	}
	if len(reg.Beats) == 0 {
		return &codeError{
			code: exitNobody, err: fmt.Errorf("no instance is known: no daemon has sent a heartbeat"),
			hint: "Start one with 'sgfleet daemon', and see that both use the same Redis and key_prefix ('sgfleet config view --sources redis key_prefix').",
		}
	}
	selected := func(fleet.Member) bool { return true }
	if len(args) > 0 {
		target, err := checkedTarget(args[0], cfg, reg)
		if err != nil {
			return err
		}
		selected = target.Match
	}
	var entries []fleet.Entry
	for _, e := range reg.Entries() {
		m, err := e.Member()
		if err == nil && selected(m) && (!behind || e.Behind) {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 && behind {
		fmt.Fprintln(a.stderr, "nobody is behind")
	}
	return a.printRoster(reg, entries, w)
}

func (a *app) printRoster(reg fleet.Registry, entries []fleet.Entry, w io.Writer) error {
	switch a.flags.output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(reg.Roster(entries))
	case "jsonl":
		enc := json.NewEncoder(w)
		for _, e := range entries {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, e := range entries {
			fmt.Fprintln(w, e.Instance)
		}
		return nil
	case "wide":
		return wideRoster(entries, w)
	}
	if len(entries) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimRight(fleet.FormatRosterTable(entries), "\n"), "\n")
	for i, line := range lines { // the first is the header
		switch {
		case i == 0:
			line = a.paint(w, dim, line)
		case entries[i-1].State == fleet.StateDown || entries[i-1].State == "failed":
			line = a.paint(w, red, line)
		case entries[i-1].Trouble():
			line = a.paint(w, yellow, line)
		}
		fmt.Fprintln(w, line)
	}
	for _, h := range reg.Holds {
		if h.Active(reg.Now) {
			fmt.Fprintf(w, "%s\n", a.paint(w, yellow, "hold on "+h.Target+": "+h.String()))
		}
	}
	return nil
}

// wideRoster is the table with what an operator needs less often.
func wideRoster(entries []fleet.Entry, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "INSTANCE\tTIER\tUNIT\tSTATE\tRESULT\tRESTARTS\tRUNNING\tCHECKOUT\tDIRECTORY\tSGFLEET\tMODE\tCONTROLLED BY\tLAST OP\tNOTES")
	for _, e := range entries {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%.9s\t%.9s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Instance, e.Tier, e.Unit, e.State, e.Result, e.NRestarts,
			e.RunningRevision, e.CheckoutRevision, e.Checkout, e.Version, e.Mode, e.ControlledBy, e.LastOp, clean(strings.Join(e.Notes, ", ")))
	}
	return t.Flush()
}
