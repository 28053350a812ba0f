package control

import (
	"context"

	"github.com/sgfleet/sgfleet/opsexec"
)

// pull moves the checkout of each instance forward, once for all that share it.
var _ = registerOp(opSpec{Name: OpPull, Pulls: true, act: actPull})

func actPull(ctx context.Context, t *task) Ack {
	if t.inst.Checkout == "" {
		return t.skipped(ReasonNoCheckout, "the service has no checkout to pull")
	}
	res := t.pull(ctx)
	a := t.ack(Done, pullStatus(res), "%s", res.Summary)
	if a.Status == Busy {
		a.Phase = Refused // nothing was done
	}
	a.Revision = res.New
	return a
}

func pullStatus(res opsexec.PullResult) Status {
	switch {
	case res.Busy:
		return Busy
	case !res.OK:
		return Failed
	case res.Joined:
		return Joined
	}
	return OK
}

// pull pulls the task's checkout, deduped with the services that share it.
func (t *task) pull(ctx context.Context) opsexec.PullResult {
	r := t.run
	cfg := r.Config.Checkouts[t.inst.Checkout]
	o := opsexec.PullOptions{
		Lock:       newPullLock(r.Client, r.keys, r.Identity.Host, t.inst.Checkout, t.inst.name, r.Identity.Token()),
		LockTTL:    r.Config.LockTTL.D(),
		Timeout:    r.Config.PullTimeout.D(),
		InstanceID: t.inst.name,
		OpID:       t.op.ID, IssuedAt: int64(t.op.IssuedAt),
		Revision: t.op.Args.Revision, AllowBackward: t.op.Args.Backward,
		Remote: cfg.Remote, Branch: cfg.Branch, AfterPull: cfg.AfterPull,
		Env: r.gitEnv(), Exec: r.Exec, Tree: r.Tree,
	}
	if t.op.Legacy {
		// Its id is that of its bytes, the same next time: it would join a
		// pull of minutes ago.
		o.OpID, o.IssuedAt = "", 0
	}
	res := opsexec.RunGitPull(ctx, t.inst.Checkout, o)
	r.heads.forget(t.inst.Checkout)
	r.beat.soon()
	return res
}

// gitEnv is the daemon's with the config's git section.
func (r *run) gitEnv() opsexec.GitEnv {
	e, g := r.GitEnv, r.Config.Git
	if e.SSHKey == "" {
		e.SSHKey = g.SSHKey
	}
	if e.KnownHosts == "" {
		e.KnownHosts = g.KnownHosts
	}
	e.AllowFile = e.AllowFile || g.AllowFile
	return e
}
