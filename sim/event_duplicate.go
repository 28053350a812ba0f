package sim

import (
	"fmt"
)

// duplicate publishes an op's very message again.
type duplicate struct {
	Op     string `yaml:"op"`
	Repeat int    `yaml:"repeat,omitempty"` // default once
}

func init() {
	registerAction(ActionInfo{
		Name: "duplicate", Summary: "publish the message of an earlier op again, byte for byte",
		Example: "{op: r1, repeat: 3}", New: func() Action { return &duplicate{} },
	})
}

// Validate implements [Action].
func (a *duplicate) Validate(p *Plan) []Problem { return validOp(p, "op", a.Op) }

// Run implements [Action].
func (a *duplicate) Run(w *World, s Step) error {
	payload := w.facts.payload(a.Op)
	if payload == "" {
		w.trace.Add(Event{Actor: "sim", Kind: EvNote, Op: a.Op, Detail: fmt.Sprintf("duplicate: %s was never published", a.Op)}, 0)
		return nil
	}
	w.trace.Add(Event{Actor: "sim", Kind: EvNote, Op: a.Op, Detail: "duplicate: published again"}, 0)
	w.sendRaw("operator/duplicate", payload, max(1, a.Repeat), 0)
	return nil
}
