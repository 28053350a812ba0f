package sim

import (
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// clockSkew sets the wall clocks of hosts wrong. Timers are not affected, as
// they are not on a real host.
type clockSkew struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
	By    fleet.Duration `yaml:"by"` // may be negative
}

func init() {
	registerAction(ActionInfo{
		Name: "clock_skew", Summary: "set the wall clocks of hosts wrong", Example: "{host: host-004, by: 1h}",
		New: func() Action { return &clockSkew{} }, Fault: true,
	})
	registerChaos("clock_skew", func(d *draw) Action {
		by := time.Duration((d.rnd.Float64() - 0.5) * float64(2*time.Hour))
		return &clockSkew{Where: Where{Host: d.host()}, Span: d.span(), By: fleet.Duration(by)}
	})
}

// Validate implements [Action].
func (a *clockSkew) Validate(p *Plan) []Problem {
	out := append(a.Where.validate(p), a.Span.validate()...)
	if a.By == 0 {
		out = append(out, Problem{Field: "by", Message: "is missing: how far the clock is ahead, such as 1h or -10m"})
	}
	return out
}

// Run implements [Action].
func (a *clockSkew) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	shift := func(by time.Duration) {
		for _, h := range what.hosts {
			h.mu.Lock()
			h.skewed += by
			h.mu.Unlock()
		}
	}
	w.disturb("clock_skew", a.For.D(), Event{Attrs: what.attrs("by", a.By.D().String())}, func() { shift(-a.By.D()) })
	shift(a.By.D())
	return nil
}
