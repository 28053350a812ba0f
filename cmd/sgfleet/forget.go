package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).forgetCmd) }

func (a *app) forgetCmd() *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use: "forget INSTANCE…", Short: "A decommissioned instance is no longer expected to answer",
		Long: `An instance that was heard of once is expected to answer for ever, and named
when it does not. forget removes it from the registry. One that still sends
heartbeats is refused.`,
		Example: "  sgfleet forget web@host-7 --yes",
		Args:    countArgs(1, -1, "INSTANCE…"), ValidArgsFunction: a.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, s := range args {
				if _, err := fleet.ParseInstance(s); err != nil {
					return &cli.Error{Code: exitUsage, Err: err}
				}
			}
			cfg, c, err := a.loadAndConnect()
			if err != nil {
				return err
			}
			defer c.Close()
			if !yes {
				question := fmt.Sprintf("Forget %s, so that nobody expects an answer any more?", shellJoin(args))
				if err := a.confirm(cmd.Context(), question, a.again("--yes")); err != nil {
					return err
				}
			}
			for _, s := range args {
				if err := fleet.Forget(cmd.Context(), c, cfg.Keys(), s, force); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s is forgotten\n", s)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even one that still sends heartbeats (it is back with the next)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
