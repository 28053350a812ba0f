package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/control"
)

// retry fills req from an earlier op: its target and arguments, narrowed to
// the instances on which it did not succeed.
func (a *app) retry(ctx context.Context, d *control.Dispatcher, req *control.Request, id string) error {
	past, err := d.FindOp(ctx, id)
	if errors.Is(err, control.ErrNoOp) {
		return &cli.Error{Code: exitNobody, Err: err, Hint: "The id stands at the end of each report: [op 01J…]."}
	}
	if err != nil {
		return a.redisError(d.Config, err)
	}
	if past.Op != req.Op {
		return &cli.Error{
			Code: exitUsage, Err: fmt.Errorf("op %s was a %s of %s, not a %s", id, past.Op, past.Target, req.Op),
			Hint: fmt.Sprintf("sgfleet %s --retry %s", past.Op, id),
		}
	}
	req.Target, req.TraceID = past.Target, id
	if req.Args.Revision == "" {
		req.Args.Revision = past.Args.Revision
	}
	req.Args.IncludeFailed = req.Args.IncludeFailed || past.Args.IncludeFailed
	known := past.Missed
	if !past.Finished || past.NoWait {
		// Its publisher was killed, or did not wait: all that it reached count.
		plan, err := d.Plan(ctx, *req)
		if err != nil {
			return a.notSent(d.Config, err)
		}
		known = nil
		for _, e := range plan.Instances {
			known = append(known, e.Instance.String())
		}
	}
	did, err := a.succeeded(ctx, d, id)
	if err != nil {
		return err
	}
	req.Only = slices.DeleteFunc(slices.Clone(known), func(i string) bool { return did[i] })
	if len(req.Only) == 0 {
		return &cli.Error{Code: exitNobody, Err: fmt.Errorf("op %s succeeded everywhere: there is nothing to send again", id)}
	}
	return nil
}

// succeeded reads from the reply list of op id who has reported success, also
// after its publisher had stopped waiting: nobody is to do a thing twice. The
// list lives for an hour; when it is gone, the history alone tells.
func (a *app) succeeded(ctx context.Context, d *control.Dispatcher, id string) (map[string]bool, error) {
	raw, err := d.Client.LRange(ctx, d.Config.Keys().Reply(id), 0, -1).Result()
	if err != nil {
		return nil, a.redisError(d.Config, fmt.Errorf("reading the answers to op %s: %w", id, err))
	}
	ok := map[string]bool{}
	for _, r := range raw {
		ack, err := control.DecodeAck([]byte(r))
		if err != nil || ack.ID != id || ack.Phase != control.Done || ack.Status == control.Pending {
			continue
		}
		if _, known := ok[ack.Instance]; !known { // the first done wins
			ok[ack.Instance] = ack.Status.Class() == control.ClassOK
		}
	}
	return ok, nil
}
