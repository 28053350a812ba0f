package sim

// slowConsumer stops daemons from reading their subscriptions, which Redis
// notices by its output buffer; their other connections work on.
type slowConsumer struct {
	Where `yaml:",inline"`
	Span  `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "slow_consumer", Summary: "keep daemons from reading their subscription: they are deaf until Redis or their watchdog closes it",
		Example: "{service: web@host-001, for: 30s}", New: func() Action { return &slowConsumer{} }, Fault: true,
	})
	registerChaos("slow_consumer", func(d *draw) Action {
		return &slowConsumer{Where: Where{Host: d.host()}, Span: d.span()}
	})
}

// Validate implements [Action].
func (a *slowConsumer) Validate(p *Plan) []Problem {
	return append(a.Where.validate(p), a.Span.validate()...)
}

// Run implements [Action].
func (a *slowConsumer) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	var held []wire
	w.disturb("slow_consumer", a.For.D(), Event{Attrs: what.attrs()}, func() {
		for _, l := range held {
			l.release(false, true, 0)
		}
	})
	for _, p := range what.processes() {
		for _, l := range p.openLinks() {
			if c := l.info(); c != nil && c.subscribed() != "" {
				l.hold(false, true)
				held = append(held, l)
			}
		}
	}
	return nil
}
