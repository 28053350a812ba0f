package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// The exit codes of sgsim.
const (
	ExitPass     = 0
	ExitSafety   = 1  // something happened that must never happen
	ExitLiveness = 2  // something did not happen in time, or a threshold was missed
	ExitVacuous  = 3  // a promise was never put to the test, or a condition never met
	ExitDiffers  = 4  // one seed gave two event logs
	ExitUsage    = 64 // a bad scenario or command line; nothing was run
	ExitInternal = 70 // the simulator itself is broken
)

// SeedRun is one seed of one scenario after its run.
type SeedRun struct {
	Seed      int64         `json:"seed"`
	Verdict   *Verdict      `json:"verdict,omitempty"` // nil when Crash or Internal is set
	Hash      string        `json:"hash,omitempty"`    // of its event log
	Crash     string        `json:"crash,omitempty"`   // production code panicked: the last lines of the worker process
	Internal  string        `json:"internal,omitempty"`
	Differs   string        `json:"differs,omitempty"` // the hash of a second run of this seed, when it is another one
	Rechecked bool          `json:"rechecked,omitempty"`
	Virtual   time.Duration `json:"virtual_ns"`
	Real      time.Duration `json:"real_ns"`
}

// Failed reports whether the run broke a promise.
func (s *SeedRun) Failed() bool { return s.Exit() != ExitPass }

// Exit is the exit code that the run alone would give.
func (s *SeedRun) Exit() int {
	switch {
	case s.Internal != "":
		return ExitInternal
	case s.Crash != "":
		return ExitSafety
	case s.Differs != "":
		return ExitDiffers
	}
	code := ExitPass
	if s.Verdict != nil {
		for _, v := range s.Verdict.Violations {
			code = Worse(code, classExit(v.Class))
		}
	}
	return code
}

func classExit(c Class) int {
	if c == Liveness {
		return ExitLiveness
	}
	return ExitSafety
}

// Worse returns the exit code that an operator has to hear of first.
func Worse(a, b int) int {
	rank := []int{ExitPass, ExitVacuous, ExitLiveness, ExitSafety, ExitDiffers, ExitInternal}
	if slices.Index(rank, b) > slices.Index(rank, a) {
		return b
	}
	return a
}

// Outcome is one scenario after all its seeds.
type Outcome struct {
	Scenario *Scenario        `json:"-"`
	Name     string           `json:"name"`
	File     string           `json:"file"`
	Exit     int              `json:"exit"`
	Seeds    int              `json:"seeds"`
	Failed   int              `json:"failed"`
	Runs     []SeedRun        `json:"runs"`
	Checks   []CheckTotal     `json:"checks"`
	Vacuous  []string         `json:"vacuous,omitempty"` // why the scenario proves less than it says
	Bounds   []ThresholdTotal `json:"thresholds,omitempty"`
	Real     time.Duration    `json:"real_ns"`
	Virtual  time.Duration    `json:"virtual_ns"`
	Stopped  bool             `json:"stopped,omitempty"` // at the first failure, as the file asks
}

// CheckTotal is one invariant or expectation over all seeds.
type CheckTotal struct {
	Check    string `json:"check"`
	Required bool   `json:"required"` // must be armed in 90 % of the seeds
	Armed    int    `json:"armed"`    // how often it was put to the test, in all
	ArmedIn  int    `json:"armed_in"` // in how many seeds
	BrokenIn int    `json:"broken_in"`
}

// ThresholdTotal is one threshold over the samples of all seeds.
type ThresholdTotal struct {
	Metric  string        `json:"metric"`
	Bound   string        `json:"bound"`
	Value   time.Duration `json:"value_ns"`
	Samples int           `json:"samples"`
	Holds   bool          `json:"holds"`
}

// armedShare is the share of its seeds in which a promise that a scenario
// states must be put to the test; below it the scenario is vacuous.
const armedShare = 0.9

// Summarize draws the sum of a scenario's runs.
func Summarize(sc *Scenario, runs []SeedRun) *Outcome {
	o := &Outcome{Scenario: sc, Name: sc.Name, File: sc.File, Seeds: len(runs), Runs: runs}
	slices.SortStableFunc(o.Runs, func(a, b SeedRun) int { return cmp.Compare(a.Seed, b.Seed) })
	judged := 0
	totals := map[string]*CheckTotal{}
	conditions := map[string]int{}
	for i := range o.Runs {
		s := &o.Runs[i]
		o.Real, o.Virtual = o.Real+s.Real, o.Virtual+s.Virtual
		o.Exit = Worse(o.Exit, s.Exit())
		if s.Failed() {
			o.Failed++
		}
		if s.Verdict == nil {
			continue
		}
		judged++
		o.tally(totals, s.Verdict)
		for c, happened := range s.Verdict.Sometimes {
			if happened {
				conditions[c]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		t := totals[name]
		t.Required = sc.mustArm(name)
		o.Checks = append(o.Checks, *t)
		if t.Required && judged > 0 && float64(t.ArmedIn) < armedShare*float64(judged) {
			o.Vacuous = append(o.Vacuous, fmt.Sprintf("%s was put to the test in only %d of %s (want %d%%)", name, t.ArmedIn, plural(judged, "seed"), int(armedShare*100)))
		}
	}
	for _, c := range sc.Expect.Sometimes {
		if judged > 0 && conditions[c] == 0 {
			o.Vacuous = append(o.Vacuous, fmt.Sprintf("%q happened in none of %s", c, plural(judged, "seed")))
		}
	}
	o.thresholds(sc)
	if len(o.Vacuous) > 0 {
		o.Exit = Worse(o.Exit, ExitVacuous)
	}
	return o
}

func (o *Outcome) tally(totals map[string]*CheckTotal, v *Verdict) {
	get := func(name string) *CheckTotal {
		if totals[name] == nil {
			totals[name] = &CheckTotal{Check: name}
		}
		return totals[name]
	}
	for name, n := range v.Armed {
		t := get(name)
		t.Armed += n
		if n > 0 {
			t.ArmedIn++
		}
	}
	broken := map[string]bool{}
	for _, x := range v.Violations {
		if !broken[x.Check] {
			get(x.Check).BrokenIn++
		}
		broken[x.Check] = true
	}
}

// mustArm reports whether the scenario states the check: an expectation of its
// own, or an invariant that it names.
func (sc *Scenario) mustArm(check string) bool {
	for _, list := range [][]Expectation{sc.Expect.Always, sc.Expect.Finally} {
		for _, e := range list {
			if e.ID() == check && !vacuousByNature(e) {
				return true
			}
		}
	}
	return false
}

// vacuousByNature marks bounds of "none at all": that nothing happened is what
// they want.
func vacuousByNature(e Expectation) bool {
	var b Bound
	switch a := e.Args.(type) {
	case *restartsArgs:
		b = a.Bound
	case *pullsArgs:
		b = a.Bound
	default:
		return false
	}
	return b.Max != nil && *b.Max == 0
}

func (o *Outcome) thresholds(sc *Scenario) {
	for _, metric := range slices.Sorted(maps.Keys(sc.Expect.Thresholds)) {
		var samples []time.Duration
		for _, s := range o.Runs {
			if s.Verdict != nil {
				samples = append(samples, s.Verdict.Samples[metric]...)
			}
		}
		for _, text := range sc.Expect.Thresholds[metric] {
			t, err := parseThreshold(metric, text)
			if err != nil {
				continue // Parse has refused it
			}
			total := ThresholdTotal{Metric: metric, Bound: text, Samples: len(samples)}
			if len(samples) == 0 {
				o.Vacuous = append(o.Vacuous, fmt.Sprintf("threshold %s %s: nothing was measured", metric, text))
				o.Bounds = append(o.Bounds, total)
				continue
			}
			total.Value = t.value(samples)
			total.Holds = t.holds(total.Value)
			if !total.Holds {
				o.Exit = Worse(o.Exit, ExitLiveness)
			}
			o.Bounds = append(o.Bounds, total)
		}
	}
}

// ExitMeaning says an exit code in words.
func ExitMeaning(code int) string {
	return map[int]string{
		ExitPass: "every promise was kept", ExitSafety: "safety violated", ExitLiveness: "liveness or a threshold missed",
		ExitVacuous: "vacuous: a promise was never put to the test", ExitDiffers: "not deterministic", ExitInternal: "the simulator is broken",
	}[code]
}
