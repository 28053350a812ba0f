package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).holdCmd, (*app).unholdCmd) }

func (a *app) holdCmd() *cobra.Command {
	var until, reason string
	cmd := &cobra.Command{
		Use: "hold TARGET", Short: "Maintenance: daemons refuse ops on TARGET until it is released",
		Long: `While TARGET is held its daemons answer restart, pull and update with "held" and
do nothing; the roster shows who holds it and why. "hold all" is a freeze.`,
		Example: `  sgfleet hold host:db-3 --until 2h --reason "disk swap"
  sgfleet hold all --reason freeze`,
		Args: exactArgs("TARGET"), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			h := fleet.Hold{Target: args[0], By: whoami(), Reason: reason}
			cfg, c, err := a.loadAndConnect()
			if err != nil {
				return err
			}
			defer c.Close()
			reg, err := a.registry(ctx, cfg, c)
			if err != nil {
				return err
			}
			target, err := checkedTarget(args[0], cfg, reg)
			if err != nil {
				return err
			}
			if until != "" {
				// Redis has the fleet's clock; this host's may be off.
				end, err := parseUntil(until, reg.Now.Time().In(time.Local))
				if err != nil {
					return err
				}
				h.Until = fleet.TimeOf(end)
			}
			if h, err = fleet.SetHold(ctx, c, cfg.Keys(), h); err != nil {
				return err
			}
			n := 0
			for _, m := range reg.Members() {
				if target.Match(m) {
					n++
				}
			}
			if a.flags.output == "json" || a.flags.output == "jsonl" {
				return a.printJSON(map[string]any{"schema": 1, "hold": h, "instances": n})
			}
			fmt.Fprintf(a.stdout, "%s (%s) is %s\nRelease it: sgfleet unhold %s\n", h.Target, count(n, "instance"), h, shellQuote(h.Target))
			return nil
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "when it ends by itself: 2h, 18:30 or \"2026-01-31 18:30\"")
	cmd.Flags().StringVar(&reason, "reason", "", "shown in the roster and in refusals")
	return cmd
}

func (a *app) unholdCmd() *cobra.Command {
	return &cobra.Command{
		Use: "unhold TARGET", Short: "Release a hold, named by the target it was set with",
		Example: "  sgfleet unhold host:db-3",
		Args:    exactArgs("TARGET"), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, c, err := a.loadAndConnect()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := fleet.ClearHold(cmd.Context(), c, cfg.Keys(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s is released\n", args[0])
			return nil
		},
	}
}
