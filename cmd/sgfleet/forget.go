package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() { commands = append(commands, (*app).forgetCmd) }

func (a *app) forgetCmd() *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use: "forget TARGET…", Short: "Decommissioned instances are no longer expected to answer",
		Long: `An instance that was heard of once is expected to answer for ever, and named
when it does not. forget removes it from the registry, and with the last
instance of a dead host its daemon. When one of them still sends heartbeats
nothing is forgotten.`,
		Example: `  sgfleet forget web@host-7
  sgfleet forget host:node-2 --yes          a host that is gone, daemon and all
  sgfleet forget 'inference@gpu-*,!inference@gpu-1'`,
		Args: countArgs(1, -1, "TARGET…"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.completeTargets(cmd, nil, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forget(cmd.Context(), args, force, yes)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even one that still sends heartbeats (it is back with the next)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) forget(ctx context.Context, args []string, force, yes bool) error {
	cfg, c, err := a.loadAndConnect()
	if err != nil {
		return err
	}
	defer c.Close()
	reg, err := a.registry(ctx, cfg, c)
	if err != nil {
		return err
	}
	names, err := forgettable(cfg, reg, args)
	if err != nil {
		return err
	}
	if !force {
		if err := allGone(reg, names); err != nil {
			return err
		}
	}
	if !yes {
		for _, n := range names {
			fmt.Fprintln(a.stderr, n)
		}
		question := fmt.Sprintf("Forget %s, so that nobody expects an answer any more?", count(len(names), "instance"))
		if err := a.confirm(ctx, question, a.again("--yes")); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := fleet.Forget(ctx, c, cfg.Keys(), n, force); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s is forgotten\n", n)
	}
	return nil
}

// forgettable returns the instances that the targets select, and the dead
// daemons of hosts of which nothing else is left: no target but sgfleet@HOST
// means those. An instance that is named is taken as it is, since an entry that
// cannot be read is no member.
func forgettable(cfg *fleet.Config, reg fleet.Registry, targets []string) ([]string, error) {
	var names []string
	selected := map[string]bool{}
	add := func(name string) {
		if !selected[name] {
			selected[name] = true
			names = append(names, name)
		}
	}
	for _, s := range targets {
		if i, err := fleet.ParseInstance(s); err == nil {
			add(i.String())
			continue
		}
		t, err := checkedTarget(s, cfg, reg)
		if err != nil {
			return nil, err
		}
		for _, m := range reg.Members() {
			if t.Match(m) {
				add(m.String())
			}
		}
	}
	if len(names) == 0 {
		return nil, &cli.Error{Code: exitNobody, Err: fmt.Errorf("target %s selects nobody", shellJoin(targets)), Hint: "'sgfleet services' lists who is there."}
	}
	for _, h := range reg.Beats {
		if h.Service != fleet.DaemonService || !h.Down(reg.Now, fleet.DefaultHeartbeatInterval) {
			continue
		}
		on := func(other fleet.Heartbeat) bool { return other.Host == h.Host && other.Service != fleet.DaemonService }
		left := func(other fleet.Heartbeat) bool { return on(other) && !selected[other.Instance] }
		if slices.ContainsFunc(reg.Beats, on) && !slices.ContainsFunc(reg.Beats, left) {
			add(h.Instance)
		}
	}
	return names, nil
}

// allGone refuses those that would be back with their next heartbeat.
func allGone(reg fleet.Registry, names []string) error {
	var alive []string
	for _, h := range reg.Beats {
		if slices.Contains(names, h.Instance) && !h.Down(reg.Now, fleet.DefaultHeartbeatInterval) {
			alive = append(alive, fmt.Sprintf("%s sent a heartbeat %s ago", h.Instance, fleet.Humane(reg.Now.Sub(h.At))))
		}
	}
	if len(alive) == 0 {
		return nil
	}
	return &cli.Error{
		Code: exitError, Err: fmt.Errorf("%s and would be back with the next: nothing is forgotten", strings.Join(alive, ", ")),
		Hint: "Stop the daemon first, or use --force.",
	}
}
