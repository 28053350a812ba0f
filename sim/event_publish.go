package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

// publish dispatches an op, as sgfleet restart|pull|update|ping does.
type publish struct {
	ID     string `yaml:"id"` // name of the op in this scenario
	Op     string `yaml:"op"`
	Target string `yaml:"target"` // default all
	By     string `yaml:"by,omitempty"`

	Revision      string         `yaml:"revision,omitempty"` // tip (default), a commit, or tip~N with N commits less
	Backward      bool           `yaml:"backward,omitempty"`
	IncludeFailed bool           `yaml:"include_failed,omitempty"`
	NoWait        bool           `yaml:"no_wait,omitempty"`
	Timeout       fleet.Duration `yaml:"timeout,omitempty"`
	Retry         string         `yaml:"retry,omitempty"`   // op whose missed instances are addressed
	NoPush        bool           `yaml:"no_push,omitempty"` // a pull or update finds nothing new at the remote
	// Unchecked sends a target that matches nothing: the scenario is about what
	// becomes of it.
	Unchecked bool `yaml:"unchecked,omitempty"`
}

func init() {
	registerAction(ActionInfo{
		Name: "publish", Summary: "dispatch an op and collect what becomes of it",
		Example: "{id: r1, op: restart, target: all}", New: func() Action { return &publish{} },
	})
}

// OpName implements [OpNamer].
func (a *publish) OpName() string { return a.ID }

// Validate implements [Action].
func (a *publish) Validate(p *Plan) []Problem {
	var out []Problem
	if a.ID == "" {
		out = append(out, Problem{Field: "id", Message: "is missing: it names the op for later entries and expectations"})
	}
	ops := control.OpNames()
	if !slices.Contains(ops, a.Op) {
		out = append(out, Problem{Field: "op", Message: fmt.Sprintf("%q is no op", a.Op), Value: a.Op, Known: ops})
	}
	if a.Target == "" && !a.Unchecked {
		a.Target = fleet.TargetAll
	}
	if !a.Unchecked {
		if _, err := p.Target(a.Target); err != nil {
			out = append(out, Problem{Field: "target", Message: err.Error()})
		}
	}
	if a.Retry != "" {
		out = append(out, validOp(p, "retry", a.Retry)...)
	}
	return out
}

// Run implements [Action].
func (a *publish) Run(w *World, _ Step) error {
	if (a.Op == "pull" || a.Op == "update") && !a.NoPush {
		w.push()
	}
	revision, err := w.revision(a.Revision)
	if err != nil {
		return err
	}
	req := control.Request{
		Op: a.Op, Target: a.Target, RequestedBy: cmp.Or(a.By, "oncall"), NoWait: a.NoWait, Timeout: a.Timeout.D(),
		Args: control.Args{Revision: revision, Backward: a.Backward, IncludeFailed: a.IncludeFailed},
	}
	if a.Op == "update" && revision == "" {
		req.Args.Revision = w.remote.tip() // the CLI pins what an update goes to
	}
	if a.Retry != "" {
		req.Only = w.missed(a.Retry)
	}
	w.dispatch(a.ID, "operator/"+a.ID, req, "")
	return nil
}

// push is somebody pushing a commit.
func (w *World) push() {
	rev := w.remote.push()
	w.trace.Add(Event{Actor: "remote", Kind: EvPush, Attrs: map[string]string{"path": "*", "revision": rev}}, w.fault())
}

// revision resolves tip and tip~N; "" stays "".
func (w *World) revision(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if s == "tip" {
		return w.remote.tip(), nil
	}
	if n, ok := strings.CutPrefix(s, "tip~"); ok {
		back, err := strconv.Atoi(n)
		i := w.remote.find(w.remote.tip()) - back
		if err != nil || i < 0 {
			return "", fmt.Errorf("revision %q: the remote has no such commit", s)
		}
		return w.remote.at(i), nil
	}
	return s, nil
}

// dispatch runs a dispatcher in an operator's process, or as part of the
// gateway self.
func (w *World) dispatch(opName, process string, req control.Request, self string) {
	w.trace.Add(Event{Actor: process, Kind: EvDispatch, Op: opName, Attrs: map[string]string{
		"op": req.Op, "target": req.Target, "by": req.RequestedBy,
	}}, w.fault())
	w.operate(process, opName, func(ctx context.Context, inc *incarnation) error {
		client, err := control.Connect(inc.proc.host.cfg, control.ConnectOptions{Dialer: inc.dialer})
		if err != nil {
			return err
		}
		defer client.Close()
		d := &control.Dispatcher{Config: inc.proc.host.cfg, Client: client, Identity: inc.identity(), Log: inc.logger(), Self: self}
		began := time.Now()
		report, err := d.Dispatch(ctx, req, func(_ context.Context, text string) error {
			if !inc.alive() {
				return errFenced
			}
			w.trace.Add(Event{Actor: inc.proc.name, Kind: EvSend, Op: opName, Detail: text}, 0)
			return nil
		})
		if inc.alive() {
			w.reported(inc.proc.name, opName, report, err, time.Since(began))
		}
		return nil
	})
}

// reported records what a dispatcher says became of its op.
func (w *World) reported(actor, op string, r *control.Report, err error, took time.Duration) {
	if r == nil {
		e := Event{Actor: actor, Kind: EvNoReport, Op: op, Attrs: map[string]string{}}
		if err != nil {
			e.Detail = err.Error()
		}
		var notSent *control.NotSentError
		if errors.As(err, &notSent) {
			e.Attrs["exit"] = strconv.Itoa(notSent.Code)
		}
		w.trace.Add(e, 0)
		return
	}
	lists := map[string][]string{}
	for _, i := range r.Instances {
		lists[string(i.Class)] = append(lists[string(i.Class)], i.Instance)
	}
	attrs := map[string]string{
		"id": r.ID, "exit": strconv.Itoa(r.ExitCode()), "duration_ms": strconv.FormatInt(took.Milliseconds(), 10),
		"release": r.Release, "published": r.Published, "accepted_ms": strconv.FormatInt(r.AcceptedMS, 10),
	}
	if r.NoWait {
		attrs["no_wait"] = "true"
	}
	if len(r.Notes) > 0 {
		attrs["notes"] = strings.Join(r.Notes, "; ")
	}
	for _, class := range []control.Class{control.ClassOK, control.ClassFailed, control.ClassRefused, control.ClassUnfinished, control.ClassSilent} {
		attrs[string(class)] = strings.Join(lists[string(class)], ",")
	}
	ref := w.trace.Add(Event{Actor: actor, Kind: EvReport, Op: op, Detail: r.Summary, Attrs: attrs}, 0)
	w.mu.Lock()
	w.reports[op] = r
	w.mu.Unlock()
	for _, i := range r.Instances {
		w.trace.Add(Event{
			Actor: actor, Kind: EvVerdict, Op: op, Instance: i.Instance, Host: i.Host,
			Detail: i.Detail, Attrs: map[string]string{
				"class": string(i.Class), "phase": string(i.Phase), "status": string(i.Status), "revision": i.Revision,
				"invocation": i.InvocationID, "done_ms": strconv.FormatInt(i.DoneMS, 10),
			},
		}, ref)
	}
}

// missed are the instances that did not succeed with op.
func (w *World) missed(op string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.reports[op]; r != nil {
		return r.Missed()
	}
	return nil
}
