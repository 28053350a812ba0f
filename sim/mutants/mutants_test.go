package mutants

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sgfleet/sgfleet/control/redistest"
)

// TestMutants plants each bug in a copy of the repository, builds sgsim there
// and runs the scenario. It takes minutes and so wants to be asked for: make
// mutants. SGFLEET_MUTANTS=1 runs all of them, SGFLEET_MUTANTS=07,12 those two.
func TestMutants(t *testing.T) {
	which := os.Getenv("SGFLEET_MUTANTS")
	if which == "" {
		t.Skip("set SGFLEET_MUTANTS=1, or call make mutants")
	}
	server := redistest.Start(t)
	w := newWorkshop(t, "redis://"+server.Addr+"/0")
	waiting := map[string]func() (*result, error){}
	for _, m := range table {
		if which != "1" && !slices.Contains(strings.Split(which, ","), m.patch[:2]) {
			continue
		}
		t.Run(m.patch, func(t *testing.T) {
			exe := w.plant(t, m.patch)
			if m.realTime != "" { // it mostly waits, so the others need not wait for it
				waiting[m.patch] = inBackground(func() (*result, error) { return w.sgsim(exe, m.realTime, realTimeSeed) })
				w.healthy(m.realTime, realTimeSeed)
			}
			got, err := w.sgsim(exe, m.scenario, m.seeds)
			w.judge(t, m, m.scenario, m.seeds, got, err)
		})
	}
	for _, m := range table {
		if wait := waiting[m.patch]; wait != nil {
			t.Run(m.patch+"/real-time", func(t *testing.T) {
				got, err := wait()
				w.judge(t, m, m.realTime, realTimeSeed, got, err)
			})
		}
	}
	if keys := server.Do("DBSIZE"); keys != int64(0) {
		t.Errorf("%v keys were left on the redis-server", keys)
	}
}

// judge holds a run with a bug against one without it.
func (w *workshop) judge(t *testing.T, m mutant, scenario, seeds string, got *result, err error) {
	if err != nil {
		t.Fatal(err)
	}
	clean, err := w.healthy(scenario, seeds)()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range clean.runs {
		if s.Failed() {
			t.Errorf("scenario %s fails on clean code, seed %d: %s", scenario, s.Seed, summary(&s))
		}
	}
	for _, s := range got.runs {
		if why := broken(&s, m.check); why != "" {
			t.Logf("caught by %s in %s, seed %d, after %v: %s", m.check, scenario, s.Seed, got.when(&s, m.check), why)
			if also := others(&s, m.check); len(also) > 0 {
				t.Logf("also broken: %s", strings.Join(also, ", "))
			}
			if got.exit == 0 {
				t.Errorf("sgsim exited with 0 all the same")
			}
			return
		}
	}
	t.Errorf("%s survives: %s is unbroken in %s, seeds %s", m.patch, m.check, scenario, seeds)
	for _, s := range got.runs {
		t.Logf("seed %d: %s", s.Seed, summary(&s))
	}
}
