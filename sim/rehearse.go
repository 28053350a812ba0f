package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// RehearseOptions are the arguments of [Rehearse].
type RehearseOptions struct {
	From    string // file with the output of sgfleet services -o json
	Op      string // restart, pull or update
	Target  string
	Seeds   int      // per variant; 0 means 40
	First   int64    // the first seed; 0 means 1
	Faults  []string // presets to rehearse under beside "as it is"; nil: all of them
	Workers int
	// MinLive is the share of a tier that must stay up at every moment, in
	// percent; 0: whatever happens is reported and not judged.
	MinLive float64
	OnRun   func(variant string, done, total int) // progress; may be nil
}

// Rehearsal is what a rehearsal found out.
type Rehearsal struct {
	Schema   int                `json:"schema"`
	Op       string             `json:"op"`
	Target   string             `json:"target"`
	Go       bool               `json:"go"`
	Exit     int                `json:"exit"`    // 0 go, 1 an invariant broke, 2 too slow, too few live or failing as it is
	Reasons  []string           `json:"reasons"` // why no-go, and what else to know
	Fleet    RehearsedFleet     `json:"fleet"`
	Variants []RehearsalVariant `json:"variants"`
	Worst    WorstRun           `json:"worst"`
}

// RehearsedFleet is the twin.
type RehearsedFleet struct {
	Hosts     int      `json:"hosts"`
	Instances int      `json:"instances"`
	Targeted  int      `json:"targeted"`
	Silent    []string `json:"silent"` // were DOWN or DEAF when the fleet was recorded: expect them to stay silent
}

// RehearsalVariant is the op under one kind of trouble.
type RehearsalVariant struct {
	Faults   string        `json:"faults"`
	Help     string        `json:"help"`
	Seeds    int           `json:"seeds"`
	P50      time.Duration `json:"p50_ns"` // from dispatch to report
	P95      time.Duration `json:"p95_ns"`
	Worst    time.Duration `json:"worst_ns"`
	Finished int           `json:"finished"` // seeds with a report
	Clean    int           `json:"clean"`    // seeds whose report gives exit code 0
	Live     []LiveFigures `json:"live"`     // the lowest of all seeds, per tier
	Broken   []BrokenShare `json:"broken"`   // invariants that broke
	Silent   []NameShare   `json:"silent"`   // who was silent or unfinished in how many seeds, most first
	Failed   []NameShare   `json:"failed"`
}

// BrokenShare is in what share of the seeds an invariant broke, with the 95 %
// Wilson interval of the share.
type BrokenShare struct {
	Invariant string  `json:"invariant"`
	Seeds     int     `json:"seeds"`
	Share     float64 `json:"share"`
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
	Example   int64   `json:"example"` // a seed
	Detail    string  `json:"detail"`
}

// NameShare is how often an instance was named.
type NameShare struct {
	Instance string  `json:"instance"`
	Seeds    int     `json:"seeds"`
	Share    float64 `json:"share"`
}

// WorstRun is the run that one wants to look at.
type WorstRun struct {
	Faults string        `json:"faults"`
	Seed   int64         `json:"seed"`
	Why    string        `json:"why"`
	Took   time.Duration `json:"took_ns"`
	// Reproduce is the command that shows its timeline again.
	Reproduce string `json:"reproduce"`

	scenario *Scenario
	rank     int
}

// Rehearse builds a twin of a recorded fleet and runs the op on it, as it is and
// under faults, over many seeds.
func Rehearse(ctx context.Context, o RehearseOptions) (*Rehearsal, error) {
	o.Seeds, o.First = cmp.Or(o.Seeds, 40), cmp.Or(o.First, 1)
	chosen, err := choosePresets(o.Faults)
	if err != nil {
		return nil, err
	}
	r := &Rehearsal{Schema: ReportSchema, Op: o.Op, Target: o.Target, Reasons: []string{}}
	seeds := make([]int64, o.Seeds)
	for i := range seeds {
		seeds[i] = o.First + int64(i)
	}
	for _, p := range chosen {
		sc, silent, err := o.scenario(p)
		if err != nil {
			return nil, err
		}
		if r.Fleet.Hosts == 0 {
			targeted, _ := sc.plan.Target(o.Target) // the scenario was checked
			r.Fleet = RehearsedFleet{len(sc.plan.Hosts), len(sc.plan.Members()), len(targeted), append([]string{}, silent...)}
		}
		n := 0
		out, err := RunScenario(ctx, sc, seeds, RunOptions{Workers: o.Workers, OnRun: func(SeedRun) {
			n++
			if o.OnRun != nil {
				o.OnRun(p.name, n, len(seeds))
			}
		}})
		if err != nil {
			return nil, err
		}
		r.add(p, sc, out)
	}
	r.decide(o)
	r.Worst.Reproduce = fmt.Sprintf("sgsim rehearse --from %s --faults %s --seeds 1 --seed %d --timeline %s %s",
		shellWord(o.From), r.Worst.Faults, r.Worst.Seed, o.Op, shellWord(o.Target))
	return r, nil
}

// scenario writes the rehearsal as a scenario file, so that it is checked like
// any other and its seeds can be run again.
func (o RehearseOptions) scenario(p faultPreset) (*Scenario, []string, error) {
	from, err := filepath.Abs(o.From)
	if err != nil {
		return nil, nil, err
	}
	timeline := []map[string]any{entry(rehearsedAt, "publish", map[string]any{"id": rehearsedOp, "op": o.Op, "target": o.Target})}
	timeline = append(timeline, p.timeline()...)
	doc := yaml.MapSlice{
		{Key: "sgsim", Value: 1},
		{Key: "name", Value: "rehearse-" + p.name},
		{Key: "description", Value: fmt.Sprintf("%s %s on a twin of %s: %s", o.Op, o.Target, filepath.Base(o.From), p.help)},
		{Key: "until", Value: "15m"},
		{Key: "settle", Value: "10m"},
		{Key: "fleet", Value: map[string]any{"twin": from}},
		{Key: "timeline", Value: timeline},
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the rehearsal: %w", err)
	}
	sc, warnings, err := Parse("rehearsal of "+filepath.Base(o.From), text)
	if err != nil {
		return nil, nil, o.mistake(err)
	}
	var silent []string
	for _, w := range warnings {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(w.Message, "fleet.twin: "), " was not listening when the fleet was recorded; its twin is"); ok {
			silent = append(silent, name)
		}
	}
	return sc, silent, nil
}

// mistake says what is wrong with the target or the recording, and no more: the
// operator did not write the file that the error is about, and the warnings
// belong to the answer.
func (o RehearseOptions) mistake(err error) error {
	var file *FileError
	if !errors.As(err, &file) {
		return err
	}
	var lines []string
	for _, p := range file.Problems {
		line, twin := strings.CutPrefix(p.Message, "fleet.twin: ")
		if p.Warning {
			continue
		}
		if twin { // what is said of the target follows from it
			return errors.New(line)
		}
		line = strings.TrimPrefix(line, "timeline[0]: ")
		if p.Hint != "" {
			line += " (" + p.Hint + ")"
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("cannot rehearse %s %s on a twin of %s: %s", o.Op, o.Target, o.From, strings.Join(lines, "; "))
}

// add draws the sum of one variant.
func (r *Rehearsal) add(p faultPreset, sc *Scenario, out *Outcome) {
	v := RehearsalVariant{Faults: p.name, Help: p.help, Seeds: len(out.Runs), Broken: []BrokenShare{}, Silent: []NameShare{}, Failed: []NameShare{}}
	var took []time.Duration
	silent, failed, broken := map[string]int{}, map[string]int{}, map[string]*BrokenShare{}
	for i := range out.Runs {
		s := &out.Runs[i]
		r.worse(p, sc, s)
		for _, b := range brokenIn(s) {
			if broken[b.Invariant] == nil {
				broken[b.Invariant] = &b
			}
			broken[b.Invariant].Seeds++
		}
		if s.Verdict == nil {
			continue
		}
		v.Live = lowestLive(v.Live, s.Verdict.Figures.Live)
		for _, op := range s.Verdict.Figures.Ops {
			if op.Op != rehearsedOp || !op.Finished {
				continue
			}
			v.Finished++
			took = append(took, op.Took)
			if op.Exit == "0" {
				v.Clean++
			}
			for _, n := range append(slices.Clone(op.Silent), op.Unfinished...) {
				silent[n]++
			}
			for _, n := range op.Failed {
				failed[n]++
			}
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		v.P50, v.P95, v.Worst = quantile(took, 50), quantile(took, 95), took[len(took)-1]
	}
	for _, name := range slices.Sorted(maps.Keys(broken)) {
		b := *broken[name]
		b.Share = float64(b.Seeds) / float64(v.Seeds)
		b.Low, b.High = Wilson(b.Seeds, v.Seeds)
		v.Broken = append(v.Broken, b)
	}
	v.Silent, v.Failed = shares(silent, v.Seeds), shares(failed, v.Seeds)
	r.Variants = append(r.Variants, v)
}

// brokenIn names each invariant that a seed broke, once.
func brokenIn(s *SeedRun) []BrokenShare {
	if s.Verdict == nil {
		return []BrokenShare{{Invariant: "crash", Example: s.Seed, Detail: cmp.Or(s.Crash, s.Internal)}}
	}
	var out []BrokenShare
	for _, x := range s.Verdict.Violations {
		if !slices.ContainsFunc(out, func(b BrokenShare) bool { return b.Invariant == x.Check }) {
			out = append(out, BrokenShare{Invariant: x.Check, Example: s.Seed, Detail: x.Detail})
		}
	}
	return out
}

func lowestLive(all, one []LiveFigures) []LiveFigures {
	if all == nil {
		return slices.Clone(one)
	}
	for i := range all {
		if i < len(one) && one[i].Low < all[i].Low {
			all[i] = one[i]
		}
	}
	return all
}

// shares sorts names by how often they came, and keeps the first twenty.
func shares(count map[string]int, seeds int) []NameShare {
	out := []NameShare{}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		out = append(out, NameShare{name, count[name], float64(count[name]) / float64(seeds)})
	}
	slices.SortStableFunc(out, func(a, b NameShare) int { return b.Seeds - a.Seeds })
	return out[:min(20, len(out))]
}

// worse keeps the run that one wants to look at: a crash, else the first broken
// invariant, else the one that took longest.
func (r *Rehearsal) worse(p faultPreset, sc *Scenario, s *SeedRun) {
	w := WorstRun{Faults: p.name, Seed: s.Seed, scenario: sc, Why: "took longest"}
	switch {
	case s.Verdict == nil:
		w.rank, w.Why = 3, "crashed"
	case len(s.Verdict.Violations) > 0:
		w.rank, w.Why = 2, "broke "+s.Verdict.Violations[0].Check
	}
	if s.Verdict != nil {
		for _, op := range s.Verdict.Figures.Ops {
			if !op.Finished && w.rank == 0 {
				w.rank, w.Why = 1, "had no report"
			}
			w.Took = op.Took
		}
	}
	if r.Worst.scenario == nil || w.rank > r.Worst.rank || w.rank == r.Worst.rank && w.Took > r.Worst.Took {
		r.Worst = w
	}
}

// decide says go or no-go. Trouble that the rehearsal itself brought about is no
// reason against: what matters is that every promise held, and that the op as it
// is does what it should.
func (r *Rehearsal) decide(o RehearseOptions) {
	r.Go, r.Exit = true, ExitPass
	no := func(exit int, format string, args ...any) {
		r.Go, r.Exit = false, Worse(r.Exit, exit)
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
	}
	for _, v := range r.Variants {
		for _, b := range v.Broken {
			no(ExitSafety, "%s: %s broke in %s (95 %% interval %s to %s): %s", v.Help, b.Invariant, percent(b.Share), percent(b.Low), percent(b.High), b.Detail)
		}
		if v.Finished < v.Seeds {
			no(ExitLiveness, "%s: %d of %d runs had no report within %v", v.Help, v.Seeds-v.Finished, v.Seeds, 15*time.Minute)
		}
		if o.MinLive > 0 {
			for _, l := range v.Live {
				if low := 100 * float64(l.Low) / float64(max(1, l.Total)); v.Faults == "none" && l.Low < l.Start && low < o.MinLive {
					no(ExitLiveness, "%s fell to %d of %d instances (%.0f %%) at %s, want at least %.0f %%", l.Tier, l.Low, l.Total, low, stamp(l.At-rehearsedAt), o.MinLive)
				}
			}
		}
	}
	if as := r.Variants[0]; as.Clean < as.Finished {
		no(ExitLiveness, "as it is, only %d of %d runs ended with every instance ok", as.Clean, as.Finished)
	}
	for _, name := range r.Fleet.Silent {
		r.Reasons = append(r.Reasons, name+" was not listening when the fleet was recorded: expect the real report to call it silent")
	}
}

// Wilson is the 95 % Wilson score interval of k hits in n trials: sensible also
// for 0 hits, where the naive interval is empty.
func Wilson(k, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959963984540054
	p, nf := float64(k)/float64(n), float64(n)
	centre := (p + z*z/(2*nf)) / (1 + z*z/nf)
	half := z / (1 + z*z/nf) * math.Sqrt(p*(1-p)/nf+z*z/(4*nf*nf))
	return max(0, centre-half), min(1, centre+half)
}

func percent(f float64) string { return fmt.Sprintf("%.1f %%", 100*f) }

// WriteJSON writes the rehearsal as JSON.
func (r *Rehearsal) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
