package main

import (
	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).schema) }

func (a *app) schema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of scenario files, for editors",
		Example: `  sgsim schema > scenario.schema.json
  # then, on the first line of a scenario:
  # yaml-language-server: $schema=scenario.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := sim.Schema()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(b)
			return err
		},
	}
}
