package sim

import (
	"errors"
	"strconv"

	"github.com/sgfleet/sgfleet/control"
)

// say is a line of chat that a gateway sees.
type say struct {
	ID   string `yaml:"id,omitempty"` // name of the op that comes of it
	Text string `yaml:"text"`
	By   string `yaml:"by,omitempty"`
}

func init() {
	registerAction(ActionInfo{
		Name: "say", Summary: "a line of chat: a command is dispatched, anything else is not",
		Example: `{id: r1, text: "!restart_inference"}`, New: func() Action { return &say{} },
	})
}

// OpName implements [OpNamer].
func (a *say) OpName() string { return a.ID }

// Validate implements [Action].
func (a *say) Validate(*Plan) []Problem {
	if a.Text == "" {
		return []Problem{{Field: "text", Message: "is missing"}}
	}
	return nil
}

// Run implements [Action].
func (a *say) Run(w *World, _ Step) error {
	cmd, err := control.ParseText(a.Text, w.control.cfg)
	known := err == nil
	e := Event{Actor: "chat", Kind: EvSay, Op: a.ID, Detail: a.Text, Attrs: map[string]string{"known": strconv.FormatBool(known)}}
	if err != nil && !errors.Is(err, control.ErrNotCommand) {
		e.Attrs["error"] = err.Error()
	}
	ref := w.trace.Add(e, w.fault())
	if !known || cmd.Op == "" {
		return nil
	}
	if cmd.Op == control.OpPull || cmd.Op == control.OpUpdate {
		w.push()
	}
	req := control.Request{Op: cmd.Op, Target: cmd.Target, RequestedBy: a.By}
	if cmd.Op == control.OpUpdate {
		req.Args.Revision = w.remote.tip()
	}
	w.acting(ref, func() { w.dispatch(a.ID, "chat/"+a.ID, req, "") })
	return nil
}
