package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Class says what kind of promise was broken, and so sgsim's exit code.
type Class string

const (
	Safety   Class = "safety"   // something happened that must never happen: exit 1
	Liveness Class = "liveness" // something did not happen, or not in time: exit 2
)

// Violation is one broken promise, with the events that led to it.
type Violation struct {
	Check  string `json:"check"` // name of the invariant or expectation
	Class  Class  `json:"class"`
	Detail string `json:"detail"`
	Events []int  `json:"events,omitempty"` // their Seq, in order
	Line   int    `json:"line,omitempty"`   // of the expectation in the scenario file
}

// Finding is what one check says of one run.
type Finding struct {
	// Armed counts how often the promise was put to the test: for no_replay,
	// the targeted instances that were down at publish.
	Armed      int
	Violations []Violation
}

func (f *Finding) violate(events []int, format string, args ...any) {
	f.Violations = append(f.Violations, Violation{Detail: fmt.Sprintf(format, args...), Events: events})
}

// Invariant is a promise that every run must keep, whatever its scenario. Each
// lives in an invariant_NAME.go of its own.
type Invariant struct {
	Name  string
	Help  string // one sentence: what must never happen
	Armed string // what is counted as "put to the test"
	Class Class
	// Judge looks at one run; with op, at that op only.
	Judge func(r *Record, op *opRecord) Finding
}

// ExpectSpec is an expectation that a scenario may state. Each lives in an
// expect_NAME.go of its own.
type ExpectSpec struct {
	Name    string
	Help    string
	Example string // YAML
	Always  bool   // may stand under always
	Finally bool   // may stand under finally
	New     func() any
	Judge   func(r *Record, args any) Finding
}

var (
	invariants   = map[string]Invariant{}
	expectations = map[string]ExpectSpec{}
)

func registerInvariant(i Invariant) {
	if _, dup := invariants[i.Name]; dup || i.Name == "" || i.Help == "" || i.Armed == "" || i.Judge == nil {
		panic("sim: invariant " + i.Name + " is registered twice or incomplete")
	}
	i.Class = cmp.Or(i.Class, Safety)
	invariants[i.Name] = i
}

func registerExpectation(e ExpectSpec) {
	if _, dup := expectations[e.Name]; dup || e.Name == "" || e.Help == "" || e.New == nil || e.Judge == nil {
		panic("sim: expectation " + e.Name + " is registered twice or incomplete")
	}
	expectations[e.Name] = e
}

func invariantNames() []string   { return slices.Sorted(maps.Keys(invariants)) }
func expectationNames() []string { return slices.Sorted(maps.Keys(expectations)) }

// Invariants returns every invariant by name.
func Invariants() []Invariant {
	var out []Invariant
	for _, n := range invariantNames() {
		out = append(out, invariants[n])
	}
	return out
}

// Expectations returns every expectation by name.
func Expectations() []ExpectSpec {
	var out []ExpectSpec
	for _, n := range expectationNames() {
		out = append(out, expectations[n])
	}
	return out
}

// Verdict is what the judges say of one run.
type Verdict struct {
	Seed       int64                      `json:"seed"`
	Violations []Violation                `json:"violations,omitempty"`
	Armed      map[string]int             `json:"armed"`               // check → how often it was put to the test
	Sometimes  map[string]bool            `json:"sometimes,omitempty"` // condition → it happened
	Samples    map[string][]time.Duration `json:"samples,omitempty"`   // metric → its values, for thresholds
	Figures    Figures                    `json:"figures"`
}

// Judge looks at a finished run: at its events, and nothing else.
func Judge(sc *Scenario, seed int64, events []Event) *Verdict {
	r := newRecord(sc, seed, events)
	v := &Verdict{Seed: seed, Armed: map[string]int{}}
	for _, e := range events {
		if e.Kind == EvAssert && e.Attr("ok") == "false" {
			v.Violations = append(v.Violations, Violation{Check: "assert", Class: Safety, Detail: e.Detail, Events: []int{e.Seq}})
		}
	}
	for _, name := range invariantNames() {
		if _, off := sc.Allow[name]; !off {
			v.add(name, 0, invariants[name].Class, invariants[name].Judge(r, nil))
		}
	}
	v.expectations(r, sc.Expect.Always, Safety)
	v.expectations(r, sc.Expect.Finally, Liveness)
	if len(sc.Expect.Sometimes) > 0 {
		v.Sometimes = map[string]bool{}
		for _, s := range sc.Expect.Sometimes {
			v.Sometimes[s] = happened(r, s)
		}
	}
	for metric := range sc.Expect.Thresholds {
		if v.Samples == nil {
			v.Samples = map[string][]time.Duration{}
		}
		v.Samples[metric] = metrics[metric].samples(r)
	}
	v.Figures = figures(r)
	return v
}

func (v *Verdict) add(name string, line int, class Class, f Finding) {
	v.Armed[name] += f.Armed
	for _, x := range f.Violations {
		x.Check, x.Class, x.Line = name, cmp.Or(x.Class, class), line
		v.Violations = append(v.Violations, x)
	}
}

// expectations judges the entries of always or finally. An expectation is known
// by its name and its line, since one name may stand in several.
func (v *Verdict) expectations(r *Record, list []Expectation, class Class) {
	for _, e := range list {
		if inv, ok := invariants[e.Name]; ok {
			var op *opRecord
			if a, ok := e.Args.(*opArgs); ok && a.Op != "" {
				op = r.op(string(a.Op))
			}
			v.add(e.ID(), e.Line, class, inv.Judge(r, op))
			continue
		}
		v.add(e.ID(), e.Line, class, expectations[e.Name].Judge(r, e.Args))
	}
}

// ID names an expectation within its file: "pulls (line 17)".
func (e Expectation) ID() string { return fmt.Sprintf("%s (line %d)", e.Name, e.Line) }

// ops returns op alone, or every op of the run when it is nil.
func (r *Record) each(op *opRecord) []*opRecord {
	if op != nil {
		return []*opRecord{op}
	}
	return r.ops
}
