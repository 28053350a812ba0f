package sim

import (
	"encoding/json"
	"fmt"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// legacyOp publishes an op of the original system's shape: no version, id or
// times, and a reply key of its own.
type legacyOp struct {
	ID     string `yaml:"id,omitempty"` // part of its reply key. Default legacy.
	Op     string `yaml:"op"`
	Target string `yaml:"target"`
}

func init() {
	registerAction(ActionInfo{
		Name: "legacy_op", Summary: "publish a plain op of the original system's shape", Example: "{op: restart, target: inference}",
		New: func() Action { return &legacyOp{} },
	})
}

// Validate implements [Action].
func (a *legacyOp) Validate(p *Plan) []Problem {
	var out []Problem
	if a.ID == "" {
		a.ID = "legacy"
	}
	if a.Target == "" {
		a.Target = fleet.TargetAll
	}
	if a.Op != control.OpRestart && a.Op != control.OpPull {
		out = append(out, Problem{Field: "op", Message: fmt.Sprintf("%q is no op of the original system", a.Op), Value: a.Op, Known: []string{control.OpRestart, control.OpPull}})
	}
	if _, err := p.Target(a.Target); err != nil {
		out = append(out, Problem{Field: "target", Message: err.Error()})
	}
	return out
}

// Run implements [Action].
func (a *legacyOp) Run(w *World, _ Step) error {
	cfg := w.control.cfg
	payload, err := json.Marshal(map[string]string{
		"op": a.Op, "target": a.Target, "requested_by": "chat", cfg.Legacy.ReplyField: cfg.Keys().Reply(a.ID),
	})
	if err != nil {
		return err
	}
	w.trace.Add(Event{Actor: "operator/" + a.ID, Kind: EvNote, Op: a.ID, Detail: fmt.Sprintf("legacy op %s %s", a.Op, a.Target)}, 0)
	w.sendRaw("operator/"+a.ID, string(payload), 1, 0)
	return nil
}
