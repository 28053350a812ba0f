package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).list) }

func (a *app) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list [scenarios [PATH…] | actions | invariants | expectations | conditions | chaos | metrics]",
		Short: "List scenarios, or what a scenario may say",
		Example: `  sgsim list                  the scenarios below ./scenarios
  sgsim list actions          what a timeline can do
  sgsim list expectations`,
		ValidArgs: []string{"scenarios", "actions", "invariants", "expectations", "conditions", "chaos", "metrics"},
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "scenarios"
			if len(args) > 0 {
				what, args = args[0], args[1:]
			}
			w := tabwriter.NewWriter(a.stdout, 2, 0, 2, ' ', 0)
			defer w.Flush()
			switch what {
			case "scenarios":
				files, err := scenarioFiles(args)
				if err != nil {
					return err
				}
				for _, f := range files {
					sc, _, err := sim.Load(f)
					if err != nil {
						return err
					}
					p := sc.Plan()
					fmt.Fprintf(w, "%s\t%s\t%d instances on %d hosts\t%s\n", sc.Name, count(len(sc.Seeds.List), "seed"), len(p.Members()), len(p.Hosts), sc.Description)
				}
			case "actions":
				for _, x := range sim.Actions() {
					fmt.Fprintf(w, "%s\t%s\t%s\n", x.Name, x.Summary, x.Example)
				}
			case "invariants":
				for _, x := range sim.Invariants() {
					fmt.Fprintf(w, "%s\t%s\n", x.Name, x.Help)
				}
			case "expectations":
				for _, x := range sim.Expectations() {
					fmt.Fprintf(w, "%s\t%s\t%s\n", x.Name, x.Help, x.Example)
				}
			case "conditions":
				for _, x := range append(sim.Conditions(), "ack STATUS", "event KIND") {
					fmt.Fprintln(w, x)
				}
			case "chaos":
				for _, x := range sim.ChaosFaults() {
					fmt.Fprintln(w, x)
				}
			case "metrics":
				for _, x := range sim.Metrics() {
					fmt.Fprintf(w, "%s\t%s\n", x[0], x[1])
				}
			default:
				return usagef("cannot list %q (%s)", what, fleet.DidYouMean(what, cmd.ValidArgs))
			}
			return nil
		},
	}
}
