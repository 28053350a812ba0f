package main

import (
	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).restartCmd) }

func (a *app) restartCmd() *cobra.Command {
	return a.opCmd(opCmd{
		name: control.OpRestart, dangerous: true, includeFailed: true,
		short: "Restart the services of TARGET, gateways last",
		long: `Every live daemon restarts the units that TARGET selects, at once, and reports
whether each really came back: active after its settle time, under a new
invocation. Gateways restart when all others have answered. A stopped unit stays
stopped; a failed one is restarted only when it is named (web@host-3), or with
--include-failed. What was left alone is "skipped", and counts as ok for the exit
code.`,
		example: `  sgfleet restart inference            one tier
  sgfleet restart web@host-3           one service on one host
  sgfleet restart 'all,!host:db-*'     everything but some hosts
  sgfleet restart 'inference@h[1-4,7]' names as the roster folds them
  sgfleet restart all --dry-run        whom it would touch
  sgfleet restart --retry 01JD…        those of an earlier op that did not succeed
  sgfleet restart web --local          this host, without Redis
  sgfleet restart sgfleet@host-3       the daemon itself`,
	})
}
