package sim

import (
	"fmt"
	"strconv"
)

// slowRestart makes units slow to stop and start.
type slowRestart struct {
	Where  `yaml:",inline"`
	Span   `yaml:",inline"`
	Factor float64 `yaml:"factor"`
}

// failRestart makes units fail when they are restarted.
type failRestart struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
	Then  string `yaml:"then,omitempty"` // failed (default: the start fails), dead (systemd says done, and it dies 50 ms later), flapping (dead, and started again and again)
}

// stopUnit is an operator's systemctl stop.
type stopUnit struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
}

// maskUnit is systemctl mask.
type maskUnit struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "slow_restart", Summary: "make units slower to stop and start by a factor", Example: "{target: inference, pick: 30%, factor: 5}",
		New: func() Action { return &slowRestart{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "fail_restart", Summary: "make units fail when they are restarted: failed, dead or flapping", Example: "{service: web@host-001, then: dead}",
		New: func() Action { return &failRestart{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "stop_unit", Summary: "stop a unit, as an operator does by hand; it stays stopped until the fault heals, for good without for",
		Example: "{service: web@host-001}", New: func() Action { return &stopUnit{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "mask_unit", Summary: "mask a unit: it cannot be restarted", Example: "{service: web@host-001, for: 1m}",
		New: func() Action { return &maskUnit{} }, Fault: true,
	})
	registerChaos("slow_restart", func(d *draw) Action {
		return &slowRestart{Where: Where{Service: d.instance()}, Span: d.span(), Factor: 1.5 + 4*d.rnd.Float64()}
	})
	registerChaos("restart_fails", func(d *draw) Action {
		then := []string{failStart, failDead, failFlapping}[d.rnd.IntN(3)]
		return &failRestart{Where: Where{Service: d.instance()}, Span: d.span(), Then: then}
	})
	registerChaos("stop_unit", func(d *draw) Action {
		return &stopUnit{Where: Where{Service: d.instance()}, Span: d.span()}
	})
}

// Validate implements [Action].
func (a *slowRestart) Validate(p *Plan) []Problem {
	out := append(a.Where.validate(p), a.Span.validate()...)
	if a.Factor <= 0 {
		out = append(out, Problem{Field: "factor", Message: "must be positive: 5 makes a restart five times longer"})
	}
	return out
}

// Run implements [Action].
func (a *slowRestart) Run(w *World, s Step) error {
	return w.onUnits(s, "slow_restart", a.Where, a.Span, func(u *unit) func() {
		u.slow = append(u.slow, a.Factor)
		return func() { u.slow = drop(u.slow, a.Factor) }
	}, "factor", strconv.FormatFloat(a.Factor, 'g', 3, 64))
}

// Validate implements [Action].
func (a *failRestart) Validate(p *Plan) []Problem {
	out := append(a.Where.validate(p), a.Span.validate()...)
	switch a.Then {
	case "":
		a.Then = failStart
	case failStart, failDead, failFlapping:
	default:
		out = append(out, Problem{
			Field: "then", Message: fmt.Sprintf("%q is no way to fail", a.Then), Value: a.Then,
			Known: []string{failStart, failDead, failFlapping},
		})
	}
	return out
}

// Run implements [Action].
func (a *failRestart) Run(w *World, s Step) error {
	return w.onUnits(s, "fail_restart", a.Where, a.Span, func(u *unit) func() {
		u.fail = append(u.fail, a.Then)
		return func() { u.fail = drop(u.fail, a.Then) }
	}, "then", a.Then)
}

// Validate implements [Action].
func (a *stopUnit) Validate(p *Plan) []Problem {
	return append(a.Where.validate(p), a.Span.validate()...)
}

// Run implements [Action].
func (a *stopUnit) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	var heal func()
	if a.For > 0 {
		heal = what.recover
	}
	w.disturb("stop_unit", a.For.D(), Event{Attrs: what.attrs()}, heal)
	if what.daemon != nil {
		what.daemon.unit.stop()
	}
	for _, m := range what.members {
		m.unit.stop()
	}
	return nil
}

// Validate implements [Action].
func (a *maskUnit) Validate(p *Plan) []Problem {
	return append(a.Where.validate(p), a.Span.validate()...)
}

// Run implements [Action].
func (a *maskUnit) Run(w *World, s Step) error {
	return w.onUnits(s, "mask_unit", a.Where, a.Span, func(u *unit) func() {
		u.masked = true
		return func() { u.masked = false }
	})
}

// onUnits applies a fault to the units of a selection. begin is called with
// the unit locked and returns what undoes it.
func (w *World) onUnits(s Step, action string, where Where, span Span, begin func(*unit) func(), attrs ...string) error {
	what, err := w.pick(s, where)
	if err != nil {
		return err
	}
	var units []*unit
	if what.daemon != nil {
		units = append(units, what.daemon.unit)
	}
	for _, m := range what.members {
		units = append(units, m.unit)
	}
	var ends []func()
	w.disturb(action, span.For.D(), Event{Attrs: what.attrs(attrs...)}, func() {
		for i, end := range ends {
			units[i].mu.Lock()
			end()
			units[i].mu.Unlock()
		}
	})
	for _, u := range units {
		u.mu.Lock()
		ends = append(ends, begin(u))
		u.mu.Unlock()
	}
	return nil
}
