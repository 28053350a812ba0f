package sim

import (
	"fmt"
	"io"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/junit"
)

// WriteJUnit writes outcomes as JUnit XML: a scenario is a suite, a seed a
// case.
func WriteJUnit(w io.Writer, outcomes []*Outcome) error {
	var suites junit.Testsuites
	for _, o := range outcomes {
		s := junit.Testsuite{Name: o.Name, File: o.File, Time: fmt.Sprintf("%.3f", o.Real.Seconds())}
		s.AddProperty("virtual_seconds", fmt.Sprintf("%.0f", o.Virtual.Seconds()))
		for _, c := range o.Checks {
			s.AddProperty("armed."+c.Check, fmt.Sprintf("%d times in %d of %d seeds", c.Armed, c.ArmedIn, o.Seeds))
		}
		for i := range o.Runs {
			s.AddTestcase(junitCase(o, &o.Runs[i]))
		}
		for _, b := range o.Bounds {
			c := junit.Testcase{Name: "threshold " + b.Metric + " " + b.Bound, Classname: o.Name, Time: "0"}
			if !b.Holds {
				c.Failure = &junit.Result{Message: fmt.Sprintf("got %v over %d samples", b.Value, b.Samples), Type: "threshold"}
			}
			s.AddTestcase(c)
		}
		if len(o.Vacuous) > 0 {
			s.AddTestcase(junit.Testcase{
				Name: "not vacuous", Classname: o.Name, Time: "0",
				Failure: &junit.Result{Message: o.Vacuous[0], Type: "vacuous", Data: strings.Join(o.Vacuous, "\n")},
			})
		}
		suites.AddSuite(s)
	}
	if err := suites.WriteXML(w); err != nil {
		return fmt.Errorf("writing JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitCase(o *Outcome, s *SeedRun) junit.Testcase {
	c := junit.Testcase{Name: fmt.Sprintf("seed %d", s.Seed), Classname: o.Name, Time: fmt.Sprintf("%.3f", s.Real.Seconds())}
	body := "reproduce: " + Reproduce(o, s.Seed) + "\n"
	switch {
	case s.Internal != "":
		c.Error = &junit.Result{Message: "the simulator is broken", Type: "internal", Data: s.Internal + "\n" + body}
	case s.Crash != "":
		c.Failure = &junit.Result{Message: "production code panicked or the run did not end", Type: "crash", Data: s.Crash + "\n" + body}
	case s.Differs != "":
		c.Failure = &junit.Result{Message: "two runs of this seed gave two event logs", Type: "not deterministic", Data: body}
	case s.Verdict != nil && len(s.Verdict.Violations) > 0:
		first := s.Verdict.Violations[0]
		var b strings.Builder
		for _, v := range s.Verdict.Violations {
			fmt.Fprintf(&b, "%s: %s (events %v)\n", v.Check, v.Detail, v.Events)
		}
		c.Failure = &junit.Result{Message: first.Check + ": " + first.Detail, Type: string(first.Class), Data: b.String() + body}
	}
	return c
}
