package main

import (
	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).pingCmd) }

func (a *app) pingCmd() *cobra.Command {
	return a.opCmd(opCmd{
		name: control.OpPing, expectVersion: true,
		short: "Ask the daemons of TARGET to answer, and change nothing",
		example: `  sgfleet ping all
  sgfleet ping 'sgfleet@*'             the daemons themselves
  sgfleet ping all --expect-version v0.3.0   exit 3 when one runs another`,
	})
}
