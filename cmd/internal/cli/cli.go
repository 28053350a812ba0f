// Package cli is what sgfleet and sgsim do alike on a command line: errors with
// an exit code and a next step, the word that was probably meant, colour, the
// terminal's size, the version.
package cli

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sgfleet/sgfleet/fleet"
)

// Error is an error with its exit code and, when there is one, the next thing
// to do. An Err of nil exits silently: everything has been said.
type Error struct {
	Code int
	Err  error
	Hint string
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Group returns the action of a command that only has subcommands: without a
// word it is the help, and any word is an error, since cobra has found no
// subcommand of that name. otherWords are hints for commands that people look
// for under another name.
func Group(code int, otherWords map[string]string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		hint := otherWords[args[0]]
		if hint == "" {
			hint = fmt.Sprintf("Run '%s --help' for the list.", cmd.CommandPath())
		}
		return &Error{code, fmt.Errorf("unknown command %q%s", args[0], DidYouMean(args[0], names)), hint}
	}
}

// FlagError returns a command's FlagErrorFunc: pflag's message in plainer words,
// with the flag that was probably meant.
func FlagError(code int) func(*cobra.Command, error) error {
	return func(cmd *cobra.Command, err error) error {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) {
			why := errors.Unwrap(err)
			if t := bad.GetFlag().Value.Type(); strings.HasPrefix(t, "int") || strings.HasPrefix(t, "uint") {
				why = fmt.Errorf("%q is not a whole number", bad.GetValue())
			}
			err = fmt.Errorf("--%s: %w", bad.GetFlag().Name, why)
		}
		suggestion := ""
		if _, name, ok := strings.Cut(err.Error(), "unknown flag: "); ok {
			suggestion = DidYouMean(name, names)
		}
		return &Error{code, fmt.Errorf("%w%s", err, suggestion), fmt.Sprintf("Run '%s --help' for the flags.", cmd.CommandPath())}
	}
}

// DidYouMean renders the nearest name as a tail for an error message, "" when
// none is near.
func DidYouMean(word string, known []string) string {
	if n := fleet.Nearest(word, known); word != "" && n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}

// version is set by the Makefile (git describe).
var version string

// Version falls back to what go build recorded of the checkout.
func Version() string {
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
