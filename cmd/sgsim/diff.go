package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).diff) }

func (a *app) diff() *cobra.Command {
	var seeds string
	var commands bool
	cmd := &cobra.Command{
		Use:   "diff A.jsonl B.jsonl | diff SCENARIO --seed N[,M]",
		Short: "Show the first event in which two runs part",
		Long: `diff compares two event logs (sgsim run --events), or runs a scenario twice: two
seeds, or one seed with one thread and with four, whose logs must be the same.`,
		Example: `  sgsim diff before.jsonl after.jsonl
  sgsim diff scenarios/gateway-last.yaml --seed 7        the same seed twice
  sgsim diff scenarios/gateway-last.yaml --seed 7,8`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			same := false
			switch {
			case len(args) == 2:
				logs := [2][]sim.Event{}
				for i, name := range args {
					f, err := os.Open(name)
					if err != nil {
						return usagef("%w", err)
					}
					logs[i], err = sim.ReadEvents(f)
					f.Close()
					if err != nil {
						return usagef("%s: %w", name, err)
					}
				}
				same = sim.WriteDiff(a.stdout, args[0], args[1], logs[0], logs[1])
			case seeds == "":
				return usagef("say which runs to compare: two event logs, or a scenario and --seed")
			default:
				var err error
				if same, err = a.diffSeeds(cmd.Context(), args[0], seeds, commands); err != nil {
					return err
				}
			}
			if !same {
				return done(sim.ExitDiffers)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&seeds, "seed", "", "one seed to run twice, or two seeds: 7 or 7,8")
	cmd.Flags().BoolVar(&commands, "commands", false, "compare every Redis command, too")
	return cmd
}

func (a *app) diffSeeds(ctx context.Context, file, seeds string, commands bool) (same bool, err error) {
	sc, _, err := sim.Load(file)
	if err != nil {
		return false, err
	}
	list, err := parseSeeds(seeds)
	if err != nil {
		return false, err
	}
	if len(list) == 1 {
		list = append(list, list[0])
	}
	if len(list) != 2 {
		return false, usagef("--seed %s: want one seed or two", seeds)
	}
	var names [2]string
	var logs [2][]sim.Event
	for i, threads := range []int{1, 4} {
		run, events, err := sim.RunSeed(ctx, sc, list[i], sim.SeedOptions{Commands: commands, Threads: threads})
		if err != nil {
			return false, err
		}
		if run.Verdict == nil {
			return false, fmt.Errorf("seed %d did not end: %s%s", list[i], run.Crash, run.Internal)
		}
		names[i], logs[i] = fmt.Sprintf("seed %d (GOMAXPROCS %d)", list[i], threads), events
	}
	return sim.WriteDiff(a.stdout, names[0], names[1], logs[0], logs[1]), nil
}
