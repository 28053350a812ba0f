package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).fuzz) }

func (a *app) fuzz() *cobra.Command {
	var length time.Duration
	var from int64
	var workers int
	cmd := &cobra.Command{
		Use:   "fuzz [PATH…] --for 60s",
		Short: "Run scenarios with fresh seeds until the time is over or one fails",
		Long: `fuzz goes round the scenarios with seeds that no run has used yet, until its time
is over. The first failure ends it, with the line that repeats it.`,
		Example: `  sgsim fuzz --for 60s
  sgsim fuzz scenarios/everyday-chaos.yaml --for 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.load(args, nil, "text")
			if err != nil {
				return err
			}
			if from == 0 {
				from = 1_000_000 + rand.Int64N(1_000_000_000)
			}
			return a.fuzzFor(cmd.Context(), list, length, from, workers)
		},
	}
	cmd.Flags().DurationVar(&length, "for", time.Minute, "how long")
	cmd.Flags().Int64Var(&from, "from", 0, "the first seed; 0 draws one")
	cmd.Flags().IntVar(&workers, "workers", 0, "worker processes; 0: one a core")
	return cmd
}

// fuzzBatch is how many seeds of one scenario are run before the next one's
// turn.
const fuzzBatch = 4

func (a *app) fuzzFor(ctx context.Context, list []*sim.Scenario, length time.Duration, seed int64, workers int) error {
	limit, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	began, runs := time.Now(), 0
	p := a.newProgress("auto", "fuzzing", 0)
	p.until = began.Add(length)
	text := &sim.TextReport{W: a.stdout, Color: a.colour(a.stdout)}
	text.Events = func(o *sim.Outcome, seed int64) ([]sim.Event, error) {
		_, events, err := sim.RunSeed(ctx, o.Scenario, seed, sim.SeedOptions{})
		return events, err
	}
	for i := 0; limit.Err() == nil; i++ {
		sc := list[i%len(list)]
		seeds := make([]int64, fuzzBatch)
		for k := range seeds {
			seeds[k] = seed
			seed++
		}
		o, err := sim.RunScenario(limit, sc, seeds, sim.RunOptions{Workers: workers, OnRun: func(s sim.SeedRun) { p.step(s.Failed()) }})
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return err
		}
		runs += o.Seeds
		if o.Failed > 0 {
			p.end()
			o.Vacuous, o.Bounds = nil, nil // four seeds say nothing about those
			o.Exit = sim.ExitPass
			for _, s := range o.Runs {
				o.Exit = sim.Worse(o.Exit, s.Exit())
			}
			o.Runs = slices.DeleteFunc(o.Runs, func(s sim.SeedRun) bool { return !s.Failed() })
			text.Outcome(o)
			return done(o.Exit)
		}
	}
	p.end()
	fmt.Fprintf(a.stdout, "%s of %s in %.0f s, none failed\n", count(runs, "fresh seed"), count(len(list), "scenario"), time.Since(began).Seconds())
	return nil
}
