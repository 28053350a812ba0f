package main

import (
	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).pullCmd) }

func (a *app) pullCmd() *cobra.Command {
	return a.opCmd(opCmd{
		name: control.OpPull, dangerous: true, ref: true,
		short: "Pull the checkouts behind TARGET, once per host and checkout",
		long: `Services that share a checkout pull it once: one of them fetches and moves
forward, the others join its outcome. Nothing is restarted, so the new revision
runs from the next restart on, also an unplanned one: see update.`,
		example: `  sgfleet pull all
  sgfleet pull web --ref 3f2a9c1       to one commit; forward only
  sgfleet pull web@host-3 -o json`,
	})
}
