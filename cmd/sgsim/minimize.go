package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).minimize) }

func (a *app) minimize() *cobra.Command {
	o := sim.MinimizeOptions{}
	var seeds, out string
	cmd := &cobra.Command{
		Use:   "minimize SCENARIO",
		Short: "Shrink a scenario that fails to the smallest that still does",
		Long: `minimize looks for a seed that breaks a promise and then takes away what is not
needed for it: chaos, entries of the timeline, hosts, services, replicas. It
writes the smallest scenario that still breaks the same promise.`,
		Example: `  sgsim minimize scenarios/everyday-chaos.yaml --seeds 39
  sgsim minimize failing.yaml --out smallest.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sc, _, err := sim.Load(args[0])
			if err != nil {
				return err
			}
			list := sc.Seeds.List
			if seeds != "" {
				if list, err = parseSeeds(seeds); err != nil {
					return err
				}
			}
			o.Log = func(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }
			m, err := sim.Minimize(cmd.Context(), sc, list, o)
			if err != nil {
				return usagef("%w", err)
			}
			fmt.Fprintf(a.stderr, "%d runs: seed %d breaks %s\n", m.Runs, m.Seed, m.Check)
			if out == "" {
				_, err = a.stdout.Write(m.Text)
				return err
			}
			return writeFile(out, func(w *os.File) error { _, err := w.Write(m.Text); return err })
		},
	}
	cmd.Flags().StringVar(&seeds, "seeds", "", "look among these seeds instead of the file's: 1..200 or 39")
	cmd.Flags().StringVar(&out, "out", "", "write the smallest scenario to this `file` instead of stdout")
	cmd.Flags().IntVar(&o.Runs, "max-runs", 200, "give up shrinking after so many runs")
	cmd.Flags().IntVar(&o.Workers, "workers", 0, "worker processes; 0: one a core")
	return cmd
}
