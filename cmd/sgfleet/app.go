package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// app is one invocation of the program. Each subcommand is a file of its own
// that adds itself to commands.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	args           []string // as given, to say them again
	flags          globals

	systemd func() opsexec.Units // in tests, in place of this host's systemd
}

// openUnits returns this host's systemd and what closes it.
func (a *app) openUnits(ctx context.Context) (opsexec.Units, func()) {
	if a.systemd != nil {
		return a.systemd(), func() {}
	}
	return hostUnits(ctx, discard)
}

// globals are the flags that every command takes.
type globals struct {
	config string
	redis  string
	output string
	color  string
}

// commands builds the subcommands; each file's init appends its own.
var commands []func(*app) *cobra.Command

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sgfleet",
		Short: "Restart, pull and update a fleet of systemd services over Redis pub/sub",
		Long: `sgfleet controls a fleet of systemd services on many hosts. An op is broadcast
once to every live daemon and never replayed to one that was down; every
instance is accounted for by name.`,
		Example: `  sgfleet services                   who is there, and on what revision
  sgfleet restart inference          restart one tier everywhere, gateways last
  sgfleet update all --dry-run       whom it would touch
  sgfleet pull web@host-3 --yes      one instance, no question asked`,
		Version:      cli.Version(), // --version; the version command says more
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: cli.Group(exitUsage, otherWords),
		CompletionOptions: cobra.CompletionOptions{
			DisableDefaultCmd: true,
		},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(cli.FlagError(exitUsage))
	f := root.PersistentFlags()
	f.StringVar(&a.flags.config, "config", "", "config file read after /etc/sgfleet/config.yaml and the user's own")
	f.StringVar(&a.flags.redis, "redis", "", "Redis `URL`, for example redis://10.0.0.5:6379/0")
	f.StringVarP(&a.flags.output, "output", "o", "text", "`format` of the result: "+strings.Join(outputs, ", "))
	f.StringVar(&a.flags.color, "color", "auto", "auto, always or never; NO_COLOR is honoured")
	complete(root, "output", outputs...)
	complete(root, "color", "auto", "always", "never")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.checkFlags(cmd) }
	for _, build := range commands {
		root.AddCommand(build(a))
	}
	// A template of our own would link text/template, and with it every method
	// of every type: 3 MB.
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		if !cmd.HasParent() {
			fmt.Fprint(a.stdout, "\n"+targetsTable+"\n"+exitCodesTable)
		}
	})
	return root
}

var outputs = []string{"text", "wide", "json", "jsonl", "name"}

func (a *app) checkFlags(*cobra.Command) error {
	if !slices.Contains(outputs, a.flags.output) {
		return usagef("unknown output format %q: want %s%s", a.flags.output, strings.Join(outputs, ", "), cli.DidYouMean(a.flags.output, outputs))
	}
	if modes := []string{"auto", "always", "never"}; !slices.Contains(modes, a.flags.color) {
		return usagef("unknown --color %q: want %s", a.flags.color, strings.Join(modes, ", "))
	}
	return nil
}

// otherWords are commands that people look for under another name.
var otherWords = map[string]string{
	"retry":  "To send an op again to those that did not do it: sgfleet restart --retry ID (or pull, update).",
	"status": "Who is there and in what state: sgfleet services",
	"list":   "Who is there and in what state: sgfleet services",
	"roster": "Who is there and in what state: sgfleet services",
	"deploy": "To pull and restart on what was pulled: sgfleet update TARGET",
}

// durationFlag is a flag whose errors say what a duration looks like.
type durationFlag struct{ d *time.Duration }

func (f durationFlag) String() string {
	if f.d == nil || *f.d == 0 {
		return ""
	}
	return fleet.Duration(*f.d).String()
}

func (f durationFlag) Set(s string) error {
	return (*fleet.Duration)(f.d).UnmarshalText([]byte(s))
}

func (f durationFlag) Type() string { return "duration" }

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return countArgs(len(names), len(names), names...)
}

// countArgs is a check of the number of arguments whose message shows what is
// wanted; most < 0 means any number.
func countArgs(least, most int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		want := "takes no arguments"
		if len(names) > 0 {
			want = "wants " + strings.Join(names, " ")
		}
		return &cli.Error{
			Code: exitUsage, Err: fmt.Errorf("%s %s, got %s", cmd.CommandPath(), want, count(len(args), "argument")),
			Hint: fmt.Sprintf("Run '%s --help' for examples.", cmd.CommandPath()),
		}
	}
}

// again is this very command with more flags: what to type to go on.
func (a *app) again(flags ...string) []string {
	return slices.Concat([]string{"sgfleet"}, a.args, flags)
}

func complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag does not exist: a mistake in this program
	}
}
