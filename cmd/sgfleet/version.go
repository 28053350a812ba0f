package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/control"
)

func init() { commands = append(commands, (*app).versionCmd) }

// version is set by the Makefile (git describe).
var version string

// buildVersion falls back to what go build recorded of the checkout.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 7 {
				return s.Value[:7]
			}
		}
	}
	return "devel"
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, the protocol it speaks and what built it",
		Example: "  sgfleet version -o json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			switch a.flags.output {
			case "json", "jsonl":
				return json.NewEncoder(a.stdout).Encode(map[string]any{
					"schema": 1, "version": buildVersion(), "protocol": control.Version,
					"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			case "name":
				fmt.Fprintln(a.stdout, buildVersion())
			default:
				fmt.Fprintf(a.stdout, "sgfleet %s (protocol %d, %s, %s/%s)\n", buildVersion(), control.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			}
			return nil
		},
	}
}
