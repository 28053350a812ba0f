package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).demo) }

func (a *app) demo() *cobra.Command {
	o := sim.DemoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Restart a fleet of fake services live on screen, in real time",
		Long: `demo needs no Redis, root or config: it starts a Redis of its own on a loopback
port and a fleet of fake services on fake hosts that run the real daemon over
TCP, then restarts all of them. One hangs, one fails and one is deaf, picked by
the seed; the gateways go last. The roster is the dispatcher's own report, and
at the end it is checked against what really happened to each fake unit.`,
		Example: `  sgsim demo
  sgsim demo --seed 7
  sgsim demo --stay      keep the fleet up and try sgfleet from a second terminal`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = a.stdout
			o.TTY = a.colour(a.stdout) && cli.IsTerminal(a.stdout)
			o.Width = func() int { cols, _ := cli.Size(a.stdout); return cols }
			if !cmd.Flags().Changed("seed") {
				o.Seed = 1
			}
			if o.Seed == 0 {
				o.Seed = time.Now().UnixNano() % 100_000
			}
			return sim.Demo(cmd.Context(), o)
		},
	}
	cmd.Flags().Int64Var(&o.Seed, "seed", 1, "who is unlucky; 0 draws a new one")
	cmd.Flags().BoolVar(&o.Stay, "stay", false, "keep the fleet up until Ctrl-C, for a second terminal")
	return cmd
}
