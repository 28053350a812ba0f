package sim

import (
	"fmt"
	"strconv"
)

// assert is a check at one moment.
type assert struct {
	Where      `yaml:",inline"`
	State      string `yaml:"state,omitempty"`      // systemd's: active, inactive, failed
	Subscribed *bool  `yaml:"subscribed,omitempty"` // its daemon hears the channel
}

func init() {
	registerAction(ActionInfo{
		Name: "assert", Summary: "check the state of services at this moment", Example: "{target: all, state: active}",
		New: func() Action { return &assert{} },
	})
}

// Validate implements [Action].
func (a *assert) Validate(p *Plan) []Problem {
	out := a.Where.validate(p)
	if a.State == "" && a.Subscribed == nil {
		out = append(out, Problem{Message: "nothing is asserted: give state or subscribed"})
	}
	return out
}

// Run implements [Action].
func (a *assert) Run(w *World, s Step) error {
	what, err := w.pick(s, a.Where)
	if err != nil {
		return err
	}
	ok, detail := true, ""
	for _, m := range what.members {
		state, subscribed := m.unit.show().ActiveState, w.facts.isSubscribed(m.servedBy().name)
		if a.State != "" && state != a.State {
			ok, detail = false, fmt.Sprintf("%s is %s, not %s", m.unit.instance, state, a.State)
		}
		if a.Subscribed != nil && subscribed != *a.Subscribed {
			ok, detail = false, fmt.Sprintf("%s: subscribed is %v, not %v", m.unit.instance, subscribed, *a.Subscribed)
		}
	}
	w.trace.Add(Event{Actor: "sim", Kind: EvAssert, Detail: detail, Attrs: map[string]string{"ok": strconv.FormatBool(ok), "what": s.Where}}, 0)
	return nil
}
