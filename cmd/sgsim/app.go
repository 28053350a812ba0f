package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sgfleet/sgfleet/fleet"
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
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			var names []string
			for _, sub := range cmd.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return usagef("unknown command %q%s\nRun 'sgsim --help' for the list.", args[0], hint(args[0], names))
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		_, name, _ := strings.Cut(err.Error(), "unknown flag: ")
		return usagef("%w%s\nRun '%s --help' for the flags.", err, hint(name, names), cmd.CommandPath())
	})
	root.PersistentFlags().StringVar(&a.color, "color", "auto", "auto, always or never; NO_COLOR is honoured")
	for _, build := range commands {
		root.AddCommand(build(a))
	}
	root.SetUsageTemplate(root.UsageTemplate() + "{{if not .HasParent}}\n" + exitCodesTable + "{{end}}")
	return root
}

// codeError is an error with its exit code; one without err has been printed.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// usagef is a mistake on the command line: nothing was run.
func usagef(format string, args ...any) error {
	return &codeError{sim.ExitUsage, fmt.Errorf(format, args...)}
}

// done ends the program with code; what there is to say has been printed.
func done(code int) error {
	if code == sim.ExitPass {
		return nil
	}
	return &codeError{code: code}
}

// exit prints err, if any, and returns the exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return sim.ExitPass
	}
	var file *sim.FileError
	var ce *codeError
	switch {
	case errors.As(err, &file):
		fmt.Fprintln(a.stderr, err)
		fmt.Fprintln(a.stderr, "nothing was run")
		return sim.ExitUsage
	case errors.As(err, &ce):
		if ce.err != nil {
			fmt.Fprintf(a.stderr, "sgsim: %v\n", ce.err)
		}
		return ce.code
	}
	fmt.Fprintf(a.stderr, "sgsim: %v\n", err)
	return sim.ExitInternal
}

func hint(word string, known []string) string {
	if n := fleet.Nearest(word, known); word != "" && n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}

// colour decides by --color, then NO_COLOR and TERM=dumb, and last whether w is
// a terminal.
func (a *app) colour(w io.Writer) bool {
	switch {
	case a.color == "always":
		return true
	case a.color == "never", os.Getenv("NO_COLOR") != "", os.Getenv("TERM") == "dumb":
		return false
	}
	return isTerminal(w)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns is how wide the terminal w is, 80 when it does not say.
func columns(w any) int {
	if f, ok := w.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 {
			return cols
		}
	}
	return 80
}
