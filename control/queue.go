package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// task is one op that a service's worker is doing.
type task struct {
	*job
	run      *run
	revision string // what an update must restart on; "" for any
}

func (t *task) ack(phase Phase, status Status, format string, args ...any) Ack {
	return t.run.ack(t.inst, t.op, phase, status, fmt.Sprintf(format, args...))
}

// skipped is the ack of an instance that is left as it is.
func (t *task) skipped(why Reason, detail string) Ack {
	a := t.ack(Done, Skipped, "%s", detail)
	a.Reason = why
	return a
}

// work is the worker of one service: it does what its queue holds, one op after
// the other, until the daemon stops. Workers wake at instants of their own (see
// splay), so that what they share is used in the same order in every run.
func (r *run) work(i *instance) {
	for r.stopping.Err() == nil {
		select {
		case <-r.stopping.Done():
		case j := <-i.queue:
			if !r.perform(j) {
				i.left = append(i.left, j)
			}
		}
	}
}

// perform does one op and reports it. It reports false when the daemon stopped
// before the op began.
func (r *run) perform(j *job) (begun bool) {
	a, begun := r.do(j)
	if !begun {
		return false
	}
	defer r.underWay.add(-1)
	if a.Phase == handedOn {
		return true // the process that follows this one reports it
	}
	r.finish(j, a)
	return true
}

// handedOn is the phase of an ack that this process does not send.
const handedOn Phase = ""

// do takes a job from the queue to its end: expiry again → (gateways) release →
// splay → act.
func (r *run) do(j *job) (a Ack, begun bool) {
	t := &task{job: j, run: r}
	spec := opSpecs[j.op.Op]
	if now := r.clock.now(); now >= j.op.ExpiresAt {
		r.metrics.refused(RejectExpired)
		return t.ack(Refused, Expired, "expired: waited %s too long for its turn", now.Sub(j.op.ExpiresAt).Round(time.Millisecond)), true
	}
	if r.waits(j) {
		release, why := r.awaitRelease(r.stopping, j)
		switch release {
		case stopped:
			return Ack{}, false
		case aborted:
			return t.skipped(ReasonAborted, "not restarted: "+why), true
		case unknown:
			return t.ack(Done, Failed, "not restarted: %s", why), true
		}
	}
	if !sleep(r.stopping, hashDuration(r.Config.Splay.D(), j.inst.name, j.op.ID)) {
		return Ack{}, false
	}
	r.log.Info("op begins", "op", j.op.ID, "name", j.op.Op, "instance", j.inst.name, "by", j.op.RequestedBy)
	j.inst.mu.Lock()
	j.inst.lastOp = j.op.ID
	j.inst.mu.Unlock()
	return spec.act(r.ops, t), true
}

// finish ends the cooldown or starts it, counts, and has the final ack sent.
func (r *run) finish(j *job, a Ack) {
	began := a.Status == OK || a.Status == Joined || a.Status == Pending
	r.cooldowns.end(j, began)
	r.metrics.done(j.op.Op, a.Status)
	r.log.Info("op ends", "op", j.op.ID, "name", j.op.Op, "instance", j.inst.name, "status", a.Status, "detail", a.Detail)
	r.beat.soon()
	r.finals <- answer{op: j.op, ack: a}
}

// reportAll sends the final acks of all workers, those that have come together
// while the last ones were on their way in one MULTI: a host whose services end
// at once needs one connection for that, not one for each.
func (r *run) reportAll() {
	for a := range r.finals {
		batch := []answer{a}
		for more := true; more && len(batch) < batchSize; {
			select {
			case a, ok := <-r.finals:
				if more = ok; ok {
					batch = append(batch, a)
				}
			default:
				more = false
			}
		}
		if err := r.report(batch); err != nil {
			r.metrics.add(metricAcksLost, int64(len(batch)))
			r.log.Error("final acks not confirmed by redis", "acks", len(batch), "first", batch[0].ack.Instance, "err", err)
		}
	}
}

// report pushes final acks again and again for a while: the ops are done, and
// their senders wait.
func (r *run) report(batch []answer) error {
	ctx, cancel := context.WithTimeout(r.last, r.tuning.DoneTimeout)
	defer cancel()
	for n := 0; ; n++ {
		beats, giveBack := r.beatsWith(ctx, batch)
		err := r.Client.push(ctx, r.tuning.AckTimeout, r.keys, batch, beats...)
		giveBack()
		if err == nil || !sleep(ctx, backoff(r.tuning.BackoffFirst, r.tuning.BackoffMost, n, r.name, n)) {
			return err
		}
	}
}

// reportLeft reports, at the very end, what was accepted and never begun.
func (r *run) reportLeft() {
	var answers []answer
	for _, i := range r.instances {
		close(i.queue)
		for j := range i.queue {
			i.left = append(i.left, j)
		}
		for _, j := range i.left {
			answers = append(answers, r.refusal(j, Busy, RejectBusy, "the daemon is stopping; nothing was done"))
		}
	}
	if len(answers) == 0 {
		return
	}
	if err := r.Client.push(r.last, r.tuning.AckTimeout, r.keys, answers); err != nil {
		r.metrics.add(metricAcksLost, int64(len(answers)))
		r.log.Error("ops left undone could not be reported", "ops", len(answers), "err", err)
	}
}

// cooldowns refuses the same op on the same unit while one is under way, and
// too soon after the last one that worked. A cooldown of zero turns both off.
type cooldowns struct {
	cooldown *opsexec.Cooldown

	mu     sync.Mutex
	active map[string]bool // "op unit"
}

// begin says why the op must not begin now, "" when it may; it is under way
// then until end is called.
func (c *cooldowns) begin(op, unit string) (why string) {
	if c.cooldown.Every <= 0 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := op + " " + unit
	if c.active[key] {
		return fmt.Sprintf("a %s of %s is under way already", op, unit)
	}
	if err := c.cooldown.Check(op, unit); err != nil {
		return err.Error()
	}
	if c.active == nil {
		c.active = map[string]bool{}
	}
	c.active[key] = true
	return ""
}

// end says that the op is over. Only one that worked starts the cooldown.
func (c *cooldowns) end(j *job, worked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(c.active, j.op.Op+" "+j.inst.Unit); worked {
		c.cooldown.Start(j.op.Op, j.inst.Unit)
	}
}
