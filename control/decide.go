package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// Verifier checks the auth of an op against its other fields: who signed it,
// that outer and signed fields agree, that the signer may send this op to this
// target, and, by wall (the host's clock), that the signature is neither from
// the past nor from the future. The payload is the op as it was received. A nil
// Reject means that the op may be trusted; else its reason is
// [RejectSignature], [RejectPolicy] or [RejectSkew].
type Verifier func(op Op, payload []byte, wall time.Time) *Reject

// The modes of signing.
const (
	SigningOff        = "off"        // unsigned ops are obeyed
	SigningPermissive = "permissive" // the same, and counted
	SigningEnforce    = "enforce"    // unsigned ops are ignored
)

// batchSize bounds how many messages are decided on together: their questions
// to Redis share one round trip, and so do their acks. A flood is answered at
// the speed of batches, a single op at once.
const batchSize = 64

// decideAll is the one goroutine that decides on ops. It touches no unit and no
// checkout: what is accepted goes into the services' queues.
func (r *run) decideAll(ctx context.Context) {
	for ctx.Err() == nil {
		var batch []message
		select {
		case <-ctx.Done():
			return
		case m := <-r.intake:
			batch = append(batch, m)
		}
		for more := true; more && len(batch) < batchSize; {
			select {
			case m := <-r.intake:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		for _, m := range batch {
			r.waiting.Add(-int64(len(m.payload)))
		}
		r.decide(ctx, batch)
	}
}

// job is one op for one instance.
type job struct {
	op    *Op
	inst  *instance
	named bool // the target names this very instance
}

// candidate is a job on its way through the order of decisions.
type candidate struct {
	job
	since  fleet.Time // of the subscription that the op came by
	late   *Reject    // expired or too old by our own clock; judged after the hold
	guard  *redis.BoolCmd
	guardV *redis.StringCmd
}

// guarded reports whether the replay guard is set for it: not for an op that is
// refused anyway, and not for one without an id of its own, which only its
// cooldown guards.
func (c *candidate) guarded() bool { return c.late == nil && !c.op.Legacy }

// decide takes ops through the order of decisions: size → one strict document →
// signature, policy → known op and version → fleet, target → hold → expiry and
// too_old → replay guard → cooldown → accepted, confirmed by Redis → queue.
func (r *run) decide(ctx context.Context, batch []message) {
	var answers []answer
	var ask []*candidate
	for _, m := range batch {
		found, refused := r.examine(m)
		answers = append(answers, refused...)
		for _, c := range found {
			c.late = r.tooLate(c, r.clock.now())
			if opSpecs[c.op.Op].answer != nil {
				answers = append(answers, r.answerNow(c))
			} else {
				ask = append(ask, c)
			}
		}
	}
	var accepted []*job
	if len(ask) > 0 {
		yes, no := r.judge(ctx, ask)
		r.underWay.add(len(yes))
		accepted = yes
		answers = append(answers, no...)
	}
	for _, j := range accepted {
		answers = append(answers, answer{op: j.op, ack: r.ack(j.inst, j.op, Accepted, Pending, "")})
	}
	if len(answers) == 0 {
		return
	}
	// Not ctx: when the daemon stops now, what is accepted here is still
	// reported as left undone.
	if err := r.Client.push(context.WithoutCancel(ctx), r.tuning.AckTimeout, r.keys, answers); err != nil {
		// Nobody knows that it was accepted, so nobody waits for it: acting
		// now would be an op that its sender cannot see.
		r.metrics.add(metricAcksLost, int64(len(answers)))
		r.log.Error("acks not confirmed by redis, dropping the ops accepted with them", "acks", len(answers), "accepted", len(accepted), "err", err)
		for _, j := range accepted {
			r.metrics.refused(RejectAck)
			r.cooldowns.end(j, false)
		}
		r.underWay.add(-len(accepted))
		return
	}
	for _, j := range accepted {
		j.inst.queue <- j // has room: judge looked, and nobody else puts anything in
	}
}

// examine takes one message through the steps that need no Redis, up to the
// target. Instances that are not targeted never answer.
func (r *run) examine(m message) (found []*candidate, refused []answer) {
	op, err := Decode([]byte(m.payload), r.Config)
	var bad *Reject
	if err != nil && !errors.As(err, &bad) {
		bad = &Reject{RejectMalformed, err.Error()}
	}
	if bad != nil && (!bad.Answerable() || op.ID == "") {
		r.refuse(bad, "")
		return nil, nil
	}
	if untrusted := r.trust(op, m); untrusted != nil {
		if r.Config.Signing.Mode == SigningEnforce && untrusted.Reason == RejectSignature {
			// Silently: whoever cannot sign learns nothing from us.
			r.refuse(untrusted, op.ID)
			return nil, nil
		}
		bad = untrusted
	}
	target, err := fleet.ParseTarget(op.Target, nil)
	if err != nil {
		r.refuse(&Reject{RejectTarget, err.Error()}, op.ID)
		return nil, nil
	}
	if op.Legacy {
		// It has no times: it lives from now on, like any other.
		op.IssuedAt = r.clock.now()
		op.ExpiresAt = op.IssuedAt.Add(r.Config.OpLife.D())
	}
	for _, i := range r.instances {
		if !target.Match(i.Member()) {
			continue
		}
		j := job{op: &op, inst: i, named: target.Names(i.Member())}
		if bad != nil {
			refused = append(refused, r.refusal(&j, statusOf[bad.Reason], bad.Reason, bad.Detail))
			continue
		}
		found = append(found, &candidate{job: j, since: m.since})
	}
	return found, refused
}

// trust is the step of signature and policy. An auth that is present and cannot
// be verified is refused in every mode.
func (r *run) trust(op Op, m message) *Reject {
	switch {
	case len(op.Auth) == 0 && r.Config.Signing.Mode == SigningEnforce:
		return &Reject{RejectSignature, "the op is not signed, and this daemon obeys signed ones only"}
	case len(op.Auth) == 0:
		if r.Config.Signing.Mode == SigningPermissive {
			r.metrics.add(metricUnsigned, 1)
		}
		return nil
	case r.Verify == nil:
		return &Reject{RejectSignature, "the op is signed, and this daemon has no keys to verify it with"}
	}
	var wall time.Time
	if r.Identity.Wall != nil {
		wall = r.Identity.Wall()
	}
	return r.Verify(op, []byte(m.payload), wall)
}

// tooLate is the step of expiry and too_old, at Redis time now.
func (r *run) tooLate(c *candidate, now fleet.Time) *Reject {
	switch {
	case c.op.Legacy:
		return nil
	case c.op.IssuedAt < c.since:
		return &Reject{RejectTooOld, fmt.Sprintf("issued %s before this daemon was listening", c.since.Sub(c.op.IssuedAt).Round(time.Millisecond))}
	case c.op.ExpiresAt > now.Add(MaxOpLife+aheadSlack):
		// It would outlive the guard that remembers it, and could be replayed.
		return &Reject{RejectTime, fmt.Sprintf("issued ahead of redis's time: expires in more than %v, an op lives for %v at most", MaxOpLife+aheadSlack, MaxOpLife)}
	case now >= c.op.ExpiresAt:
		return &Reject{RejectExpired, fmt.Sprintf("expired %s ago", now.Sub(c.op.ExpiresAt).Round(time.Millisecond))}
	}
	return nil
}

// aheadSlack is what an op may seem to be issued ahead of Redis time: a failover
// may set that back a little between the publisher's look at it and ours.
const aheadSlack = 30 * time.Second

// answerNow answers an op that touches nothing. It needs no guard: answering
// twice does no harm.
func (r *run) answerNow(c *candidate) answer {
	if c.late != nil {
		return r.refusal(&c.job, statusOf[c.late.Reason], c.late.Reason, c.late.Detail)
	}
	a := opSpecs[c.op.Op].answer(r, &c.job)
	r.metrics.done(c.op.Op, a.Status)
	return answer{op: c.op, ack: a}
}

// statusOf says how a refusal is acked.
var statusOf = map[RejectReason]Status{
	RejectVersion: WrongVersion, RejectUnknownOp: WrongVersion, RejectUnknownField: WrongVersion,
	RejectSignature: Denied, RejectPolicy: Denied, RejectSkew: Skew, RejectTime: Skew,
	RejectHeld: Held, RejectExpired: Expired, RejectTooOld: TooOld, RejectDuplicate: Duplicate,
	RejectGuard: Failed, RejectCooldown: InCooldown, RejectBusy: Busy,
}

// refuse counts an op that nobody is told about.
func (r *run) refuse(why *Reject, id string) {
	r.metrics.refused(why.Reason)
	r.log.Warn("op refused", "step", why.Reason, "op", id, "why", why.Detail)
}

// refusal counts and answers. The detail begins with the step that refused.
func (r *run) refusal(j *job, status Status, reason RejectReason, detail string) answer {
	r.metrics.refused(reason)
	r.log.Info("op refused", "step", reason, "op", j.op.ID, "instance", j.inst.name, "why", detail)
	return answer{op: j.op, ack: r.ack(j.inst, j.op, Refused, status, string(reason)+": "+detail)}
}

// ack makes an ack of inst for op.
func (r *run) ack(inst *instance, op *Op, phase Phase, status Status, detail string) Ack {
	return Ack{
		ID: op.ID, Instance: inst.name, Host: inst.Instance.Host, Phase: phase, Status: status,
		Detail: oneLine(detail, maxDetail), TraceID: op.TraceID, At: r.clock.now(),
	}
}
