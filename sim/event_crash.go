package sim

// crash kills services, whole hosts, or host daemons (sgfleet@HOST).
type crash struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "crash", Summary: "kill a service, a host (power loss) or a host's daemon (service: sgfleet@HOST); it is started again when the fault heals",
		Example: "{service: web@host-001, for: 30s}", New: func() Action { return &crash{} }, Fault: true,
	})
	registerChaos("crash_service", func(d *draw) Action { return &crash{Where: Where{Service: d.instance()}, Span: d.span()} })
	registerChaos("crash_host", func(d *draw) Action { return &crash{Where: Where{Host: d.host()}, Span: d.span()} })
	registerChaos("crash_daemon", func(d *draw) Action {
		return &crash{Where: Where{Service: d.daemon()}, Span: d.span()}
	})
}

// Validate implements [Action].
func (a *crash) Validate(p *Plan) []Problem { return append(a.Where.validate(p), a.Span.validate()...) }

// Run implements [Action].
func (a *crash) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	w.disturb("crash", a.For.D(), Event{Attrs: what.attrs()}, func() { what.recover() })
	switch {
	case what.daemon != nil:
		what.daemon.unit.crash()
	case a.Host != "":
		for _, h := range what.hosts {
			h.crash()
		}
	default:
		for _, m := range what.members {
			m.unit.crash()
		}
	}
	return nil
}

// recover starts what is down of a selection.
func (p picked) recover() {
	if p.daemon != nil {
		p.daemon.unit.start("recover")
		return
	}
	for _, m := range p.members {
		m.unit.start("recover")
	}
	for _, h := range p.hosts {
		// The power is back: the daemon's own unit starts, too.
		for _, u := range h.units {
			if u.instance == "" {
				u.start("recover")
			}
		}
	}
}
