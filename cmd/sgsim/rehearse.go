package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).rehearse) }

func (a *app) rehearse() *cobra.Command {
	o := sim.RehearseOptions{}
	var output, html, progress string
	var timeline bool
	var presets []string
	for _, p := range sim.FaultPresets() {
		presets = append(presets, fmt.Sprintf("%-14s %s", p[0], p[1]))
	}
	cmd := &cobra.Command{
		Use:   "rehearse --from FILE restart|pull|update TARGET",
		Short: "Run an op on a twin of a live fleet before the real one: go or no-go",
		Long: `rehearse builds a twin of a recorded fleet and runs the op on it, as it is and
under faults, over many seeds on all cores. It answers how long the op takes,
how few instances are up at the worst moment, which promises broke in what share
of runs, who is likely to stay silent, and go or no-go.

Fault presets:
  ` + strings.Join(presets, "\n  ") + `

Exit code 0 is go; 1: a promise broke; 2: too slow, too few live, or not clean
as it is.`,
		Example: `  sgfleet services -o json > fleet.json
  sgsim rehearse --from fleet.json restart web
  sgsim rehearse --from fleet.json --faults slow-git,redis-restart --seeds 200 update all
  sgsim rehearse --from fleet.json -o json --min-live 50 restart inference`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("rehearse wants an op and a target, such as: restart web")
			}
			if ops := []string{"restart", "pull", "update"}; !slices.Contains(ops, args[0]) {
				return usagef("cannot rehearse %q: want restart, pull or update%s", args[0], cli.DidYouMean(args[0], ops))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.From == "" {
				return usagef("--from FILE is missing: the output of sgfleet services -o json")
			}
			if _, err := os.Stat(o.From); err != nil {
				return usagef("--from: %w", err)
			}
			if !slices.Contains([]string{"text", "json"}, output) {
				return usagef("unknown output format %q: want text or json", output)
			}
			if o.Seeds < 1 {
				return usagef("--seeds %d: want at least 1", o.Seeds)
			}
			if o.MinLive > 100 {
				return usagef("--min-live %v: want a percentage, at most 100", o.MinLive)
			}
			o.Op, o.Target = args[0], args[1]
			var p *progressLine
			o.OnRun = func(variant string, n, total int) {
				if n == 1 {
					p = a.newProgress(progress, "rehearsing "+variant, total)
				}
				p.step(false)
				if n == total {
					p.end()
				}
			}
			r, err := sim.Rehearse(cmd.Context(), o)
			if err != nil {
				return usagef("%w", err)
			}
			return a.rehearsed(cmd, r, output, html, timeline)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.From, "from", "", "recording of the fleet: the output of sgfleet services -o json (`FILE`)")
	f.IntVar(&o.Seeds, "seeds", 40, "runs per kind of trouble")
	f.Int64Var(&o.First, "seed", 1, "the first seed")
	f.StringSliceVar(&o.Faults, "faults", nil, "kinds of trouble to rehearse under; default all")
	f.Float64Var(&o.MinLive, "min-live", 0, "no-go when, as it is, a tier falls below this percentage of its instances")
	f.IntVar(&o.Workers, "workers", 0, "worker processes; 0: one a core")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	f.BoolVar(&timeline, "timeline", false, "print the worst run's timeline, too")
	f.StringVar(&html, "html", "", "write the worst run's timeline as a page to this `file`")
	f.StringVar(&progress, "progress", "auto", "auto, plain or none")
	return cmd
}

func (a *app) rehearsed(cmd *cobra.Command, r *sim.Rehearsal, output, html string, timeline bool) error {
	if output == "json" {
		if err := r.WriteJSON(a.stdout); err != nil {
			return err
		}
	} else {
		r.WriteText(a.stdout, a.colour(a.stdout))
		if timeline || !r.Go {
			if err := r.WriteWorst(cmd.Context(), a.stdout); err != nil {
				return err
			}
		}
	}
	if html != "" {
		if err := writeFile(html, func(w *os.File) error { return r.WorstHTML(cmd.Context(), w) }); err != nil {
			return err
		}
	}
	return done(r.Exit)
}
