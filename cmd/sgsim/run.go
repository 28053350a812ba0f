package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/sim"
)

func init() { commands = append(commands, (*app).run) }

// recheckEvery is how many seeds there are to one that runs twice.
const recheckEvery = 7

// runFlags are the flags of run.
type runFlags struct {
	seeds    string
	seed     int64
	seedSet  bool
	tags     []string
	output   string
	junit    string
	html     string
	events   string
	timeline bool
	verbose  bool
	workers  int
	recheck  int
	redis    string
	realTime bool
	progress string
}

func (a *app) run() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [PATH…]",
		Short: "Run scenarios and judge every run",
		Long: `run reads scenario files, or every *.yaml under a directory (default
./scenarios), runs each of their seeds in virtual time on all cores and judges
every run. A failure names the promise that was broken, the events that led to
it, and the one line that repeats it. Nothing is run when a file has a mistake.`,
		Example: `  sgsim run
  sgsim run scenarios/gateway-last.yaml --seeds 1..500
  sgsim run scenarios/gateway-last.yaml --seed 7 --timeline --html run.html
  sgsim run -o github --junit report.xml scenarios
  sgsim run --redis redis://127.0.0.1:6379/0 --real-time scenarios/gateway-last.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.seedSet = cmd.Flags().Changed("seed")
			return a.runScenarios(cmd.Context(), f, args)
		},
	}
	fl := cmd.Flags()
	fl.Int64Var(&f.seed, "seed", 0, "run this seed only")
	fl.StringVar(&f.seeds, "seeds", "", "run these seeds instead of the file's: 1..200 or 3,7,9")
	fl.StringSliceVar(&f.tags, "tags", nil, "only scenarios with one of these tags")
	fl.StringVarP(&f.output, "output", "o", "text", "text, json, jsonl (a line per seed) or github")
	fl.StringVar(&f.junit, "junit", "", "also write JUnit XML to this `file`")
	fl.StringVar(&f.html, "html", "", "also write a page with the timeline of one seed to this `file`: the first that fails, else the first")
	fl.StringVar(&f.events, "events", "", "also write that seed's event log to this `file` (JSON lines)")
	fl.BoolVar(&f.timeline, "timeline", false, "print that seed's timeline")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show every failing seed, and how often each promise was put to the test")
	fl.IntVar(&f.workers, "workers", 0, "worker processes; 0: one a core")
	fl.IntVar(&f.recheck, "recheck", recheckEvery, "run every Nth seed twice, at GOMAXPROCS 1 and 4, and compare the event logs; 0: none")
	fl.StringVar(&f.redis, "redis", "", "with --real-time: the redis-server to run against (`URL`); keys are prefixed and removed")
	fl.BoolVar(&f.realTime, "real-time", false, "run in real time against --redis, with the same fake hosts")
	fl.StringVar(&f.progress, "progress", "auto", "auto, plain or none")
	return cmd
}

func (f *runFlags) check() error {
	if !slices.Contains([]string{"text", "json", "jsonl", "github"}, f.output) {
		return usagef("unknown output format %q: want text, json, jsonl or github%s", f.output, cli.DidYouMean(f.output, []string{"text", "json", "jsonl", "github"}))
	}
	if f.realTime != (f.redis != "") {
		return usagef("--real-time and --redis go together: virtual time needs no server, and real time needs one")
	}
	if f.seedSet && f.seeds != "" {
		return usagef("--seed and --seeds exclude each other")
	}
	return nil
}

// seedsOf returns the seeds to run of a scenario.
func (f *runFlags) seedsOf(sc *sim.Scenario) ([]int64, error) {
	if f.seedSet {
		return []int64{f.seed}, nil
	}
	if f.seeds == "" {
		return sc.Seeds.List, nil
	}
	return parseSeeds(f.seeds)
}

func parseSeeds(s string) ([]int64, error) {
	var out []int64
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "..")
		a, err := strconv.ParseInt(from, 10, 64)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseInt(to, 10, 64)
		}
		if err != nil || b < a || b-a >= 1_000_000 {
			return nil, usagef("--seeds %q: want numbers and ranges such as 1..200 or 3,7,9", s)
		}
		for n := a; n <= b; n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

// load reads every scenario first: one mistake, and nothing is run.
func (a *app) load(paths, tags []string, output string) ([]*sim.Scenario, error) {
	files, err := scenarioFiles(paths)
	if err != nil {
		return nil, err
	}
	var list []*sim.Scenario
	bad := 0
	for _, file := range files {
		sc, warnings, err := sim.Load(file)
		if fe, ok := err.(*sim.FileError); ok {
			bad++
			if output == "github" {
				sim.GitHubDiagnostics(a.stdout, file, fe.Problems)
			} else {
				fmt.Fprintln(a.stderr, fe)
			}
			continue
		} else if err != nil {
			return nil, usagef("%w", err)
		}
		if len(warnings) > 0 {
			fmt.Fprint(a.stderr, sim.RenderProblems(file, sc.Text, warnings))
		}
		if len(tags) == 0 || slices.ContainsFunc(sc.Tags, func(t string) bool { return slices.Contains(tags, t) }) {
			list = append(list, sc)
		}
	}
	if bad > 0 {
		fmt.Fprintln(a.stderr, "nothing was run")
		return nil, done(sim.ExitUsage)
	}
	if len(list) == 0 {
		return nil, usagef("no scenario has one of the tags %s", strings.Join(tags, ", "))
	}
	return list, nil
}

func (a *app) runScenarios(ctx context.Context, f *runFlags, paths []string) error {
	if err := f.check(); err != nil {
		return err
	}
	list, err := a.load(paths, f.tags, f.output)
	if err != nil {
		return err
	}
	if f.realTime {
		if list = a.realTimeOnly(list); len(list) == 0 {
			return usagef("no scenario is left to run in real time")
		}
		if err := sim.CheckServer(ctx, f.redis); err != nil {
			return usagef("--redis: %w", err)
		}
	}
	text := &sim.TextReport{W: a.stdout, Color: a.colour(a.stdout), Verbose: f.verbose}
	text.Events = func(o *sim.Outcome, seed int64) ([]sim.Event, error) {
		_, events, err := sim.RunSeed(ctx, o.Scenario, seed, sim.SeedOptions{RedisURL: f.redis})
		return events, err
	}
	var outcomes []*sim.Outcome
	exit, total, began := sim.ExitPass, 0, time.Now()
	for i, sc := range list {
		seeds, err := f.seedsOf(sc)
		if err != nil {
			return err
		}
		p := a.newProgress(f.progress, fmt.Sprintf("[%d/%d] %s", i+1, len(list), sc.Name), len(seeds))
		o, err := sim.RunScenario(ctx, sc, seeds, sim.RunOptions{
			Workers: f.workers, Recheck: f.recheck, RedisURL: f.redis,
			OnRun: func(s sim.SeedRun) {
				p.step(s.Failed())
				if f.output == "jsonl" {
					_ = sim.WriteJSONLine(a.stdout, sc, s) // a broken pipe ends the program by itself
				}
			},
		})
		p.end()
		if err != nil {
			return err
		}
		outcomes, total = append(outcomes, o), total+o.Seeds
		exit = sim.Worse(exit, o.Exit)
		if f.output == "text" {
			text.Outcome(o)
		}
	}
	if err := a.runReports(ctx, f, outcomes, exit); err != nil {
		return err
	}
	if f.output == "text" {
		fmt.Fprintf(a.stderr, "%s, %s in %.1f s%s: %s\n", count(len(outcomes), "scenario"), count(total, "seed"), time.Since(began).Seconds(), twice(outcomes), sim.ExitMeaning(exit))
	}
	return done(exit)
}

// twice says how many seeds ran a second time, with another GOMAXPROCS, and gave
// the same event log.
func twice(outcomes []*sim.Outcome) string {
	same, differ := 0, 0
	for _, o := range outcomes {
		for _, s := range o.Runs {
			switch {
			case s.Differs != "":
				differ++
			case s.Rechecked:
				same++
			}
		}
	}
	switch {
	case differ > 0:
		return fmt.Sprintf(", %d of %d that ran twice with another event log", differ, same+differ)
	case same > 0:
		return fmt.Sprintf(", %d twice with equal event logs", same)
	}
	return ""
}

// realTimeOnly leaves out, with the reason, what cannot run in real time.
func (a *app) realTimeOnly(list []*sim.Scenario) []*sim.Scenario {
	return slices.DeleteFunc(list, func(sc *sim.Scenario) bool {
		why := sc.VirtualOnly()
		if why != "" {
			fmt.Fprintf(a.stderr, "%s is not run in real time: %s\n", sc.Name, why)
		}
		return why != ""
	})
}

// runReports writes what was asked for beside the text.
func (a *app) runReports(ctx context.Context, f *runFlags, outcomes []*sim.Outcome, exit int) error {
	switch f.output {
	case "json":
		if err := sim.WriteJSON(a.stdout, outcomes, exit); err != nil {
			return err
		}
	case "github":
		sim.WriteGitHub(a.stdout, outcomes)
	}
	if f.junit != "" {
		if err := writeFile(f.junit, func(w *os.File) error { return sim.WriteJUnit(w, outcomes) }); err != nil {
			return err
		}
	}
	if f.html == "" && f.events == "" && !f.timeline {
		return nil
	}
	o, seed := worst(outcomes)
	run, events, err := sim.RunSeed(ctx, o.Scenario, seed, sim.SeedOptions{RedisURL: f.redis})
	if err != nil {
		return err
	}
	if f.timeline {
		if err := sim.Timeline(a.stdout, events, run.Verdict); err != nil {
			return err
		}
	}
	if f.html != "" {
		err := writeFile(f.html, func(w *os.File) error { return sim.WriteHTML(w, o.Scenario, seed, events, run.Verdict) })
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "%s: %s, seed %d\n", f.html, o.Name, seed)
	}
	if f.events != "" {
		return writeFile(f.events, func(w *os.File) error { return sim.WriteEvents(w, events) })
	}
	return nil
}

// worst is the run that one wants to look at: the first that failed, else the
// first.
func worst(outcomes []*sim.Outcome) (*sim.Outcome, int64) {
	for _, o := range outcomes {
		for i := range o.Runs {
			if o.Runs[i].Failed() {
				return o, o.Runs[i].Seed
			}
		}
	}
	return outcomes[0], outcomes[0].Runs[0].Seed
}

func writeFile(name string, write func(*os.File) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return usagef("%w", err)
	}
	w, err := os.Create(name)
	if err != nil {
		return usagef("%w", err)
	}
	if err := write(w); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
