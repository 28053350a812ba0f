package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).unitsCmd) }

func (a *app) unitsCmd() *cobra.Command {
	var here bool
	cmd := &cobra.Command{
		Use: "units", Short: "The systemd unit of every service, in tier order",
		Example: `  sgfleet units
  sgfleet units --here -o wide       those of this host, with instance and checkout
  systemctl status $(sgfleet units -o name)`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.units(cmd.Context(), here) },
	}
	cmd.Flags().BoolVar(&here, "here", false, "only what this host runs, by its config")
	return cmd
}

// unitLine is one unit; its keys are stable.
type unitLine struct {
	Service  string `json:"service"`
	Tier     string `json:"tier"`
	Unit     string `json:"unit"`
	Instance string `json:"instance,omitempty"`
	Checkout string `json:"checkout,omitempty"`
}

func (a *app) units(_ context.Context, here bool) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	var lines []unitLine
	if here || a.flags.output == "wide" {
		for _, s := range cfg.LocalServices(cfg.Host) {
			lines = append(lines, unitLine{s.Instance.Service, s.Tier, s.Unit, s.Instance.String(), s.Checkout})
		}
	} else {
		for _, name := range cfg.ServiceNames() {
			lines = append(lines, unitLine{Service: name, Tier: cfg.TierOf(name), Unit: fleet.UnitName(cfg, name)})
		}
	}
	switch a.flags.output {
	case "json":
		return a.printJSON(map[string]any{"schema": 1, "units": lines})
	case "jsonl":
		enc := json.NewEncoder(a.stdout)
		for _, l := range lines {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, l := range lines {
			fmt.Fprintln(a.stdout, l.Unit)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	if a.flags.output == "wide" {
		fmt.Fprintln(w, "TIER\tUNIT\tINSTANCE\tCHECKOUT")
		for _, l := range lines {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Tier, l.Unit, l.Instance, l.Checkout)
		}
	} else {
		for _, l := range lines {
			fmt.Fprintf(w, "%s\t%s\n", l.Tier, l.Unit)
		}
	}
	return w.Flush()
}
