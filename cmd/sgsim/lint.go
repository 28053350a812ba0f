package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).lint) }

func (a *app) lint() *cobra.Command {
	output := "text"
	cmd := &cobra.Command{
		Use:   "lint [PATH…]",
		Short: "Check scenario files without running them",
		Long: `lint reads scenario files, or every *.yaml under a directory, and reports
everything that is wrong with them at once. Without a path it reads ./scenarios.`,
		Example: `  sgsim lint scenarios
  sgsim lint -o github scenarios/gateway-last.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			if output != "text" && output != "github" {
				return usagef("unknown output format %q: want text or github", output)
			}
			files, err := scenarioFiles(args)
			if err != nil {
				return err
			}
			return a.lintFiles(files, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or github")
	return cmd
}

func (a *app) lintFiles(files []string, output string) error {
	bad, warnings := 0, 0
	for _, file := range files {
		_, list, err := sim.Load(file)
		var text []byte
		if fe, ok := err.(*sim.FileError); ok {
			bad++
			list, text = fe.Problems, fe.Text
		} else if err != nil {
			return usagef("%w", err)
		} else if len(list) > 0 {
			text, _ = os.ReadFile(file) // only to show the lines
		}
		for _, d := range list {
			if d.Warning {
				warnings++
			}
		}
		if output == "github" {
			sim.GitHubDiagnostics(a.stdout, file, list)
		} else {
			fmt.Fprint(a.stdout, sim.RenderProblems(file, text, list))
		}
	}
	fmt.Fprintf(a.stderr, "%s, %d with errors, %s\n", count(len(files), "scenario"), bad, count(warnings, "warning"))
	if bad > 0 {
		return done(sim.ExitUsage)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// scenarioFiles finds the scenario files that paths name: files as they are,
// and every *.yaml below a directory.
func scenarioFiles(paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{"scenarios"}
		if _, err := os.Stat(paths[0]); err != nil {
			return nil, usagef("there is no directory scenarios here: name a scenario file, or a directory of them")
		}
	}
	var out []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, usagef("%w", err)
		}
		if !info.IsDir() {
			out = append(out, p)
			continue
		}
		before := len(out)
		err = filepath.WalkDir(p, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && (strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, usagef("%w", err)
		}
		if len(out) == before {
			return nil, usagef("there is no *.yaml below %s", p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
