package sim

// recoverAll starts what is down.
type recoverAll struct {
	Where `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "recover", Summary: "start a crashed or stopped service, or all of a host",
		Example: "{service: web@host-001}", New: func() Action { return &recoverAll{} },
	})
}

// Validate implements [Action].
func (a *recoverAll) Validate(p *Plan) []Problem { return a.Where.validate(p) }

// Run implements [Action].
func (a *recoverAll) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	e := Event{Actor: "sim", Kind: EvNote, Detail: "recover", Attrs: what.attrs()}
	w.acting(w.trace.Add(e, 0), what.recover)
	return nil
}
