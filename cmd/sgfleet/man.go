//go:build man

package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func init() { commands = append(commands, (*app).manCmd) }

// manCmd writes a manual page for each command. Only packages need it, so only
// a build for them has it: go run -tags man ./cmd/sgfleet man DIR. The pages'
// date is SOURCE_DATE_EPOCH.
func (a *app) manCmd() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Hidden: true, Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			root.Long += "\n\n" + manExitCodes()
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "sgfleet", Manual: "sgfleet"}, args[0])
		},
	}
}

// manExitCodes is the table as Markdown, which is what pages are made from.
func manExitCodes() string {
	out := ""
	for i, line := range strings.Split(strings.TrimSpace(exitCodesTable), "\n") {
		if i == 0 {
			out = "# EXIT STATUS\n"
			continue
		}
		code, means, _ := strings.Cut(strings.TrimSpace(line), " ")
		out += "\n**" + code + "**  " + strings.TrimSpace(means) + "\n"
	}
	return out
}
