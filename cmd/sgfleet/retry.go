package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sgfleet/sgfleet/control"
)

// retry fills req from an earlier op: its target and arguments, narrowed to
// the instances on which it did not succeed.
func (a *app) retry(ctx context.Context, d *control.Dispatcher, req *control.Request, id string) error {
	past, err := d.FindOp(ctx, id)
	if errors.Is(err, control.ErrNoOp) {
		return &codeError{code: exitNobody, err: err, hint: "The id stands at the end of each report: [op 01J…]."}
	}
	if err != nil {
		return a.redisError(d.Config, err)
	}
	if past.Op != req.Op {
		return &codeError{
			code: exitUsage, err: fmt.Errorf("op %s was a %s of %s, not a %s", id, past.Op, past.Target, req.Op),
			hint: fmt.Sprintf("sgfleet %s --retry %s", past.Op, id),
		}
	}
	req.Target, req.TraceID = past.Target, id
	if req.Args.Revision == "" {
		req.Args.Revision = past.Args.Revision
	}
	req.Args.IncludeFailed = req.Args.IncludeFailed || past.Args.IncludeFailed
	req.Only = past.Missed
	if !past.Finished {
		// Its publisher was killed: what the daemons answered tells as well.
		if req.Only, err = a.unanswered(ctx, d, *req, id); err != nil {
			return err
		}
	}
	if len(req.Only) == 0 {
		return &codeError{code: exitNobody, err: fmt.Errorf("op %s succeeded everywhere: there is nothing to send again", id)}
	}
	return nil
}

// unanswered reads the reply list of op id and returns those of its target that
// did not report success.
func (a *app) unanswered(ctx context.Context, d *control.Dispatcher, req control.Request, id string) ([]string, error) {
	raw, err := d.Client.LRange(ctx, d.Config.Keys().Reply(id), 0, -1).Result()
	if err != nil {
		return nil, a.redisError(d.Config, fmt.Errorf("reading the answers to op %s: %w", id, err))
	}
	ok := map[string]bool{}
	for _, r := range raw {
		if ack, err := control.DecodeAck([]byte(r)); err == nil && ack.Phase == control.Done {
			if _, known := ok[ack.Instance]; !known { // the first done wins
				ok[ack.Instance] = ack.Status.Class() == control.ClassOK
			}
		}
	}
	plan, err := d.Plan(ctx, req)
	if err != nil {
		return nil, a.notSent(d.Config, err)
	}
	var missed []string
	for _, e := range plan.Instances {
		if s := e.Instance.String(); !ok[s] {
			missed = append(missed, s)
		}
	}
	return missed, nil
}
