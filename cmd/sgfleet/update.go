package main

import (
	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).updateCmd) }

func (a *app) updateCmd() *cobra.Command {
	return a.opCmd(opCmd{
		name: control.OpUpdate, dangerous: true, includeFailed: true, ref: true,
		short: "Pull, then restart on the new revision, gateways last",
		long: `Each service of TARGET pulls (once per host and checkout) and then restarts on
what was pulled. A service whose pull fails is not restarted.`,
		example: `  sgfleet update all
  sgfleet update inference --ref 3f2a9c1
  sgfleet update all -o json | jq '.instances[] | select(.class != "ok")'`,
	})
}
