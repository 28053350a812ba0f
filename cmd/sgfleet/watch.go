package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// watchRoster shows the roster again and again until ctx ends. On a terminal
// each page takes the place of the last.
func (a *app) watchRoster(ctx context.Context, cfg *fleet.Config, c *control.Client, args []string, f servicesFlags) error {
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for {
		r, err := a.roster(ctx, cfg, c, args, f.behind)
		if ctx.Err() != nil {
			return &cli.Error{Code: exitInterrupt}
		}
		if err := a.showRoster(r, err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return &cli.Error{Code: exitInterrupt}
		case <-tick.C:
		}
	}
}

// showRoster writes one page of --watch. An error is a page, too: Redis may
// come back, and a service appear.
func (a *app) showRoster(r rosterView, err error) error {
	if !cli.IsTerminal(a.stdout) || a.flags.output != "text" && a.flags.output != "wide" {
		if err != nil {
			a.warn(err.Error())
			return nil
		}
		a.warn(r.notes...)
		return a.printRoster(r, a.stdout, 0)
	}
	var page strings.Builder
	page.WriteString("\x1b[H\x1b[2J")
	cols, rows := cli.Size(a.stdout)
	switch {
	case err != nil:
		fmt.Fprintf(&page, "%s  %v\n", time.Now().Format(time.TimeOnly), err)
		if ce := (*cli.Error)(nil); errors.As(err, &ce) && ce.Hint != "" {
			fmt.Fprintln(&page, ce.Hint)
		}
	case a.flags.output == "wide":
		if err := a.printRoster(r, &page, 0); err != nil {
			return err
		}
	default:
		for _, line := range a.rosterPage(r, cols, rows) {
			page.WriteString(line + "\n")
		}
	}
	_, err = io.WriteString(a.stdout, page.String())
	return err
}

// rosterPage renders r for a terminal of that size: no line wider, and one line
// fewer than it has, for the cursor. What does not fit is counted; whoever is
// in trouble is shown before those that are well.
func (a *app) rosterPage(r rosterView, cols, rows int) []string {
	head := clip(time.Now().Format(time.TimeOnly)+"  "+fleet.RosterSummary(r.entries), cols)
	tail := a.holdLines(r.Registry, cols)
	for _, n := range r.notes {
		tail = append(tail, clip(clean(n), cols))
	}
	const around = 3 // this head, the headings, and the cursor's line
	entries, more := fleet.FirstTroubled(r.entries, max(rows-around-len(tail), 1))
	if more != "" {
		entries, more = fleet.FirstTroubled(r.entries, max(rows-around-len(tail)-1, 1))
		tail = append([]string{clip(more, cols)}, tail...)
	}
	lines := slices.Concat([]string{a.paint(a.stdout, bold, head)}, a.rosterTable(entries, cols), tail)
	return lines[:min(len(lines), max(rows-1, 1))]
}
