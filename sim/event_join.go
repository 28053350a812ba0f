package sim

import (
	"context"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// joinHost brings a host that the plan marks absent into the fleet.
type joinHost struct {
	Host string `yaml:"host"`
}

// leaveHost takes a host out of the fleet for good.
type leaveHost struct {
	Host string `yaml:"host"`
}

func init() {
	registerAction(ActionInfo{
		Name: "join", Summary: "a host that is absent at the start comes up", Example: "{host: host-new}",
		New: func() Action { return &joinHost{} },
	})
	registerAction(ActionInfo{
		Name: "leave", Summary: "a host is decommissioned: stopped, and forgotten in the registry", Example: "{host: host-009}",
		New: func() Action { return &leaveHost{} },
	})
}

// Validate implements [Action].
func (a *joinHost) Validate(p *Plan) []Problem {
	out := validHost(p, "host", a.Host)
	for _, h := range p.Hosts {
		if h.Name == a.Host && !h.Absent {
			out = append(out, Problem{Field: "host", Message: "is there from the start; mark it absent in the fleet"})
		}
	}
	return out
}

// Run implements [Action].
func (a *joinHost) Run(w *World, _ Step) error {
	h := w.host(a.Host)
	h.mu.Lock()
	was := h.present
	h.present = true
	h.mu.Unlock()
	if !was {
		w.trace.Add(Event{Actor: h.name, Kind: EvJoin, Host: h.name}, w.fault())
		w.populate(h)
	}
	return nil
}

// Validate implements [Action].
func (a *leaveHost) Validate(p *Plan) []Problem { return validHost(p, "host", a.Host) }

// Run implements [Action].
func (a *leaveHost) Run(w *World, _ Step) error {
	h := w.host(a.Host)
	if !h.isPresent() {
		return nil
	}
	h.crash()
	h.mu.Lock()
	h.present = false
	h.mu.Unlock()
	ref := w.trace.Add(Event{Actor: h.name, Kind: EvLeave, Host: h.name}, w.fault())
	w.acting(ref, func() {
		w.command("operator/forget", func(ctx context.Context, c *control.Client, keys fleet.Keys) error {
			for _, m := range w.members {
				if m.h != h {
					continue
				}
				if err := fleet.Forget(ctx, c, keys, m.unit.instance, true); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return nil
}

// command runs what an operator's command does in Redis, as a process.
func (w *World) command(name string, f func(ctx context.Context, c *control.Client, keys fleet.Keys) error) {
	w.operate(name, "", func(ctx context.Context, inc *incarnation) error {
		client, err := control.Connect(inc.proc.host.cfg, control.ConnectOptions{Dialer: inc.dialer})
		if err != nil {
			return err
		}
		defer client.Close()
		if err := f(ctx, client, inc.proc.host.cfg.Keys()); err != nil && inc.alive() {
			w.trace.Add(Event{Actor: inc.proc.name, Kind: EvNote, Detail: "failed: " + err.Error()}, 0)
		}
		return nil
	})
}
