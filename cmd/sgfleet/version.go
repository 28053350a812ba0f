package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).versionCmd) }

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, the protocol it speaks and what built it",
		Example: "  sgfleet version -o json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			switch a.flags.output {
			case "json", "jsonl":
				return json.NewEncoder(a.stdout).Encode(map[string]any{
					"schema": 1, "version": cli.Version(), "protocol": control.Version,
					"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			case "name":
				fmt.Fprintln(a.stdout, cli.Version())
			default:
				fmt.Fprintf(a.stdout, "sgfleet %s (protocol %d, %s, %s/%s)\n", cli.Version(), control.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			}
			return nil
		},
	}
}
