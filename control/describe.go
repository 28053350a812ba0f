package control

import (
	"context"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
	"github.com/sgfleet/sgfleet/opsexec"
)

// describe is one instance's heartbeat.
func (r *run) describe(ctx context.Context, i *instance) fleet.Heartbeat {
	since, deaf := r.session.listening()
	now := r.clock.now()
	i.mu.Lock()
	lastOp, broken := i.lastOp, i.degraded
	i.mu.Unlock()
	h := fleet.Heartbeat{
		Instance: i.name, Service: i.Instance.Service, Tier: i.Tier, Host: i.Instance.Host, Unit: i.Unit,
		MachineID: r.Identity.MachineID, PID: r.Identity.PID, Version: r.Version,
		Checkout: i.Checkout, SubscribedSince: since, DeafSince: deaf,
		ControlledBy: i.ControlledBy, Mode: r.Config.Mode, LastOp: lastOp, Degraded: broken,
		IntervalMS: r.Config.HeartbeatInterval.D().Milliseconds(), At: now,
	}
	if hold, held := fleet.Held(r.beat.holds, now, i.Member()); held {
		h.Held = hold.String()
	}
	sctx, cancel := context.WithTimeout(ctx, showTimeout)
	u, err := r.Units.Show(sctx, i.Unit)
	cancel()
	switch {
	case err != nil:
		h.Degraded = "systemd cannot be asked: " + oneLine(err.Error(), 200)
	default:
		if i.Instance.Service == fleet.DaemonService && u.ActiveState == "activating" {
			// This very process, which says READY once its first entry is written.
			u.ActiveState, u.ActiveEnter = "active", time.Time{}
		}
		h.ActiveState, h.Result, h.NRestarts, h.InvocationID = u.ActiveState, u.Result, u.NRestarts, u.InvocationID
		if u.LoadState == "not-found" || u.LoadState == "masked" {
			h.Degraded = "unit " + i.Unit + " is " + u.LoadState
		}
		h.DoneTimeoutMS = r.doneTimeout(i, u).Milliseconds()
	}
	if i.self {
		h.InvocationID = r.Identity.InvocationID
	}
	r.describeCheckout(ctx, i, &h)
	if u.ActiveState == "active" && !u.ActiveEnter.IsZero() {
		r.beat.seen(i.name).started(r.clock.now().Add(-time.Since(u.ActiveEnter)))
	}
	h.Started = r.beat.seen(i.name).began
	if note := r.beat.seen(i.name).note; note != "" {
		h.Degraded = note
	}
	return h
}

// doneTimeout is how long a restart may take until its outcome is known.
func (r *run) doneTimeout(i *instance, u opsexec.Unit) time.Duration {
	if d := r.Config.TierDoneTimeout(i.Tier); d > 0 {
		return d
	}
	return opsexec.DoneTimeout(u, r.Config.TierSettle(i.Tier))
}

// describeCheckout fills in the revisions. An invocation that was not seen
// before has begun since the last look, on what is checked out now.
func (r *run) describeCheckout(ctx context.Context, i *instance, h *fleet.Heartbeat) {
	seen := r.beat.seen(i.name)
	if i.Checkout != "" {
		if h.InvocationID != seen.invocation {
			r.heads.forget(i.Checkout)
		}
		head, err := r.heads.read(ctx, r, i.Checkout)
		if err != nil && h.Degraded == "" {
			h.Degraded = "checkout: " + oneLine(err.Error(), 200)
		}
		h.CheckoutRevision = head
	}
	if h.InvocationID != "" {
		seen.become(h.InvocationID, h.CheckoutRevision, h.At)
	}
	h.RunningRevision = seen.revision
}
