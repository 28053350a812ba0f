package sim

// freeze is SIGSTOP: nothing goes in or out of the processes. Their timers run
// on, which those of a stopped process do not: a limit of virtual time.
type freeze struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "freeze", Summary: "hold everything that a daemon sends, receives or starts, as SIGSTOP does",
		Example: "{host: host-001, for: 20s}", New: func() Action { return &freeze{} }, Fault: true,
	})
	registerChaos("freeze", func(d *draw) Action { return &freeze{Where: Where{Host: d.host()}, Span: d.span()} })
}

// Validate implements [Action].
func (a *freeze) Validate(p *Plan) []Problem {
	return append(a.Where.validate(p), a.Span.validate()...)
}

// Run implements [Action].
func (a *freeze) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	var frozen []*incarnation
	for _, p := range what.processes() {
		if inc := p.current(); inc != nil {
			frozen = append(frozen, inc)
		}
	}
	w.disturb("freeze", a.For.D(), Event{Attrs: what.attrs()}, func() {
		for _, inc := range frozen {
			inc.unfreeze()
		}
	})
	for _, inc := range frozen {
		inc.freeze()
	}
	return nil
}

// processes are those that answer for a selection.
func (p picked) processes() []*process {
	if p.daemon != nil {
		return []*process{p.daemon}
	}
	var out []*process
	for _, m := range p.members {
		if q := m.servedBy(); len(out) == 0 || out[len(out)-1] != q {
			out = append(out, q)
		}
	}
	return out
}
