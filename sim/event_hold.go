package sim

import (
	"cmp"
	"context"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// hold puts a target on hold, as sgfleet hold does.
type hold struct {
	Target string           `yaml:"target"`
	Reason string           `yaml:"reason,omitempty"`
	Span   `yaml:",inline"` // then unhold; 0: it stays held
}

func init() {
	registerAction(ActionInfo{
		Name: "hold", Summary: "put a target on hold; unhold it after for", Example: "{target: inference, reason: maintenance, for: 1m}",
		New: func() Action { return &hold{} },
	})
}

// Validate implements [Action].
func (a *hold) Validate(p *Plan) []Problem {
	out := a.Span.validate()
	if _, err := p.Target(a.Target); err != nil {
		out = append(out, Problem{Field: "target", Message: err.Error()})
	}
	return out
}

// Run implements [Action].
func (a *hold) Run(w *World, _ Step) error {
	note := func(what string) {
		w.trace.Add(Event{Actor: "operator/hold", Kind: EvNote, Detail: what + " " + a.Target, Attrs: map[string]string{"target": a.Target}}, w.fault())
	}
	note("hold")
	w.command("operator/hold", func(ctx context.Context, c *control.Client, keys fleet.Keys) error {
		_, err := fleet.SetHold(ctx, c, keys, fleet.Hold{Target: a.Target, By: "oncall", Reason: cmp.Or(a.Reason, "maintenance")})
		return err
	})
	if a.For > 0 {
		w.dir.after(a.For.D(), "unhold "+a.Target, func() {
			note("unhold")
			w.command("operator/unhold", func(ctx context.Context, c *control.Client, keys fleet.Keys) error {
				return fleet.ClearHold(ctx, c, keys, a.Target)
			})
		})
	}
	return nil
}
