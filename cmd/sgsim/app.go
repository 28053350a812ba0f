package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/sim"
)

// app is one invocation of the program. Each subcommand is a file of its own
// that adds itself to commands.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	color          string
}

// commands builds the subcommands; each file's init appends its own.
var commands []func(*app) *cobra.Command

const exitCodesTable = `Exit codes:
  0   every promise was kept (rehearse: go)
  1   safety violated: something happened that must never happen
  2   liveness: something did not happen in time, or a threshold was missed
  3   vacuous: a promise was never put to the test
  4   not deterministic: one seed gave two event logs
  64  a bad scenario or command line; nothing was run
  70  the simulator itself is broken
`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sgsim",
		Short: "Run the fleet's production code on fake hosts in virtual time",
		Long: `sgsim runs the production daemon, dispatcher, locks, git and restart logic,
unmodified, on fake hosts in virtual time. A run is drawn from a seed: the same
seed gives the same run, byte for byte. Scenarios say what happens to a fleet
and what must hold; invariants such as "an op is never replayed to a service
that was down" hold in every run.`,
		Example: `  sgsim demo                                     a fleet, restarted live on screen
  sgsim run scenarios                            every scenario with all its seeds
  sgsim run scenarios/gateway-last.yaml --seed 7 --timeline
  sgfleet services -o json > fleet.json && sgsim rehearse --from fleet.json restart web`,
		SilenceUsage: true, SilenceErrors: true,
		Args:              cobra.ArbitraryArgs,
		RunE:              cli.Group(sim.ExitUsage, nil),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(cli.FlagError(sim.ExitUsage))
	root.PersistentFlags().StringVar(&a.color, "color", "auto", "auto, always or never; NO_COLOR is honoured")
	for _, build := range commands {
		root.AddCommand(checked(build(a)))
	}
	root.SetUsageTemplate(root.UsageTemplate() + "{{if not .HasParent}}\n" + exitCodesTable + "{{end}}")
	return root
}

// checked makes wrong arguments of cmd, and numbers below zero, mistakes on the
// command line.
func checked(cmd *cobra.Command) *cobra.Command {
	args := cmd.Args
	if args == nil {
		args = cobra.ArbitraryArgs
	}
	cmd.Args = func(c *cobra.Command, given []string) error {
		var below error
		c.Flags().Visit(func(f *pflag.Flag) {
			isSeed := f.Name == "seed" || f.Name == "from"
			if f.Value.Type() != "string" && !isSeed && strings.HasPrefix(f.Value.String(), "-") {
				below = usagef("--%s %s: want no less than 0", f.Name, f.Value)
			}
		})
		if below != nil {
			return below
		}
		err := args(c, given)
		var ce *cli.Error
		if err == nil || errors.As(err, &ce) {
			return err
		}
		return &cli.Error{Code: sim.ExitUsage, Err: fmt.Errorf("%s: %w", c.Name(), err), Hint: fmt.Sprintf("Run '%s --help'.", c.CommandPath())}
	}
	return cmd
}

// usagef is a mistake on the command line: nothing was run.
func usagef(format string, args ...any) error {
	return &cli.Error{Code: sim.ExitUsage, Err: fmt.Errorf(format, args...)}
}

// done ends the program with code; what there is to say has been printed.
func done(code int) error {
	if code == sim.ExitPass {
		return nil
	}
	return &cli.Error{Code: code}
}

// exit prints err, if any, and returns the exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return sim.ExitPass
	}
	var file *sim.FileError
	var ce *cli.Error
	switch {
	case errors.As(err, &file):
		fmt.Fprintln(a.stderr, err)
		fmt.Fprintln(a.stderr, "nothing was run")
		return sim.ExitUsage
	case errors.As(err, &ce):
		if ce.Err != nil {
			fmt.Fprintf(a.stderr, "sgsim: %v\n", ce.Err)
		}
		if ce.Hint != "" {
			fmt.Fprintln(a.stderr, ce.Hint)
		}
		return ce.Code
	}
	fmt.Fprintf(a.stderr, "sgsim: %v\n", err)
	return sim.ExitInternal
}

func (a *app) colour(w io.Writer) bool { return cli.Colour(w, a.color) }
