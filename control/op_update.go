package control

import "context"

// update pulls, then restarts on what was pulled. When the pull did not work,
// nothing is restarted; a service that lost the pull lock waits for the pull to
// end, so it never comes up on the old revision.
var _ = registerOp(opSpec{Name: OpUpdate, Pulls: true, Restarts: true, act: actUpdate})

func actUpdate(ctx context.Context, t *task) Ack {
	if t.inst.Checkout == "" {
		return t.restart(ctx, "")
	}
	res := t.pull(ctx)
	if s := pullStatus(res); s != OK && s != Joined {
		a := t.ack(Done, s, "not restarted: %s", res.Summary)
		if s == Busy {
			a.Phase = Refused
		}
		a.Revision = res.New
		return a
	}
	if t.op.Args.Revision != "" {
		t.revision = res.New
	}
	return t.restart(ctx, res.Summary)
}
