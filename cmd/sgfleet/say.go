package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

func init() { commands = append(commands, (*app).sayCmd) }

func (a *app) sayCmd() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use: "say TEXT", Short: "The chat door: run a chat command, print lines fit for chat",
		Long: `TEXT is a line of chat: !restart_all, !restart_TIER, !pull_TIER, !bot_pull,
!update_TIER, !services, !bot_restart, !proxy_restart. Anything else exits 64 and
does nothing, so a bot can hand over every line it hears. It does not ask: who
may say such a thing is the chat's business.`,
		Example: `  sgfleet say '!restart_inference' --by alice
  sgfleet say '!services'`,
		Args: exactArgs("TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.say(cmd.Context(), args[0], by) },
	}
	cmd.Flags().StringVar(&by, "by", "", "who said it, for acks and history (default: this account)")
	return cmd
}

func (a *app) say(ctx context.Context, text, by string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	cmd, err := control.ParseText(text, cfg)
	switch {
	case errors.Is(err, control.ErrNotCommand):
		return &cli.Error{Code: exitNoCommand}
	case err != nil:
		return &cli.Error{Code: exitNoCommand, Err: err}
	case cmd.LocalUnit != "":
		return a.sayRestart(ctx, cmd.LocalUnit)
	}
	c, err := a.connect(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if cmd.Services {
		reg, err := a.registry(ctx, cfg, c)
		if err != nil {
			return err
		}
		for _, chunk := range fleet.FormatServiceRoster(reg, cfg) {
			fmt.Fprintln(a.stdout, chunk)
		}
		return nil
	}
	if by == "" {
		by = whoami()
	}
	d := &control.Dispatcher{Config: cfg, Client: c, Identity: identity()}
	req := control.Request{Op: cmd.Op, Target: cmd.Target, RequestedBy: by}
	report, err := d.Dispatch(ctx, req, func(_ context.Context, text string) error {
		_, err := fmt.Fprintln(a.stdout, text)
		return err
	})
	if report == nil {
		return a.notSent(cfg, err)
	}
	return a.outcome(report, err)
}

// sayRestart is !bot_restart and !proxy_restart: one unit of this host.
func (a *app) sayRestart(ctx context.Context, unit string) error {
	units, done := a.openUnits(ctx)
	defer done()
	r := opsexec.RestartUnit(ctx, units, unit, opsexec.RestartOptions{
		IncludeFailed: true, Journal: opsexec.JournalLines(opsexec.OSExec, journalLines),
	})
	fmt.Fprintf(a.stdout, "%s %s: %s\n", strings.TrimSuffix(unit, ".service"), r.Status, r.Summary)
	for _, line := range r.Journal {
		fmt.Fprintln(a.stdout, "    | "+line)
	}
	return restartCode(r.Status)
}
