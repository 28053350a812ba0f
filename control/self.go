package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/opsexec"
)

// Return is what a process learns about the restart that it was started by.
type Return struct {
	Op   string // id
	Name string // restart or update
	Ack  Ack    // the final one
	Note string // what BeforeSelfRestart of the process before returned
}

// selfRecord is the value of the self key: a restart of this very process on
// its way, for the next process to report.
type selfRecord struct {
	Op           string `json:"op"`
	Name         string `json:"name"`
	TraceID      string `json:"trace_id,omitempty"`
	InvocationID string `json:"invocation_id,omitempty"` // of the process that queued it
	PID          int    `json:"pid"`
	Pulled       string `json:"pulled,omitempty"`
	Note         string `json:"note,omitempty"`
}

// restartSelf restarts the process that it runs in. That cannot be reported
// from here, so nothing may be lost on the way: stop consuming; in one MULTI
// say "accepted" and leave a note for the next process; queue the restart. What
// fails before the restart is queued is undone.
func (t *task) restartSelf(ctx context.Context, pulled string) Ack {
	r := t.run
	rec := selfRecord{
		Op: t.op.ID, Name: t.op.Op, TraceID: t.op.TraceID, Pulled: pulled,
		InvocationID: r.Identity.InvocationID, PID: r.Identity.PID,
	}
	if r.BeforeSelfRestart != nil {
		rec.Note = r.BeforeSelfRestart(ctx, *t.op)
	}
	if r.stopping.Err() != nil {
		return t.ack(Done, Failed, "%s", join(pulled, "not restarted: the daemon is being stopped"))
	}
	unlock, busy := t.shareCheckout(ctx)
	if busy != "" {
		return t.ack(Refused, Busy, "%s", join(pulled, busy))
	}
	defer unlock()

	r.session.pause(ctx)
	err := t.queueSelf(ctx, rec)
	if err == nil {
		r.log.Info("restart of this process is queued", "op", t.op.ID, "unit", t.inst.Unit)
		if err = r.awaitEnd(t.inst.Unit); err == nil {
			return Ack{Phase: handedOn}
		}
	}
	r.session.unpause()
	if err := r.forgetSelf(t.inst); err != nil {
		r.log.Error("a note about a restart that did not happen could not be removed", "instance", t.inst.name, "err", err)
	}
	return t.ack(Done, Failed, "%s", join(pulled, "not restarted: "+err.Error()))
}

// queueSelf confirms ack and note in Redis, then queues the restart.
func (t *task) queueSelf(ctx context.Context, rec selfRecord) error {
	r := t.run
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	var accepted []answer
	if !t.op.Legacy { // which has got its line
		accepted = []answer{{op: t.op, ack: t.ack(Accepted, Pending, "")}}
	}
	err = r.Client.push(ctx, r.tuning.AckTimeout, r.keys, accepted, func(ctx context.Context, p redis.Pipeliner) {
		p.Set(ctx, r.keys.Self(t.inst.name), value, SelfLife)
	})
	if err != nil {
		return fmt.Errorf("redis did not confirm the note for the next process: %w", err)
	}
	err = opsexec.QueueRestart(ctx, r.Units, t.inst.Unit)
	if errors.Is(err, opsexec.ErrBusLost) {
		return nil // it may be queued: awaitEnd finds out
	}
	return err
}

// awaitEnd waits for systemd to end this process. The error says that it did
// not: the job was cancelled, or never queued.
func (r *run) awaitEnd(unit string) error {
	const every, quiet = 2 * time.Second, 3
	for began, calm := time.Now(), 0; time.Since(began) < r.tuning.SelfWait; {
		if !sleep(r.stopping, every) {
			return nil
		}
		ctx, cancel := context.WithTimeout(r.stopping, every)
		u, err := r.Units.Show(ctx, unit)
		cancel()
		// While a restart is on its way the unit has a job or is being
		// stopped; several looks in a row that find neither mean that there
		// is none.
		if err != nil || u.Job != 0 || u.ActiveState != "active" {
			calm = 0
			continue
		}
		if calm++; calm >= quiet {
			return fmt.Errorf("the restart of %s was queued, but systemd has dropped it", unit)
		}
	}
	return fmt.Errorf("the restart of %s was queued, but this process still runs after %v", unit, r.tuning.SelfWait)
}

func (r *run) forgetSelf(i *instance) error {
	ctx, cancel := context.WithTimeout(r.last, r.tuning.AckTimeout)
	defer cancel()
	return r.Client.Del(ctx, r.keys.Self(i.name)).Err()
}

// reportReturn reports the restart that this process was started by, if so.
// The final ack and the end of the note are one MULTI: whatever happens in
// between happens again.
func (r *run) reportReturn(ctx context.Context) {
	// Deciding on ops begins at the same instant; not both in one breath.
	if !sleep(ctx, 1+hashDuration(time.Millisecond, r.name, "return")) {
		return
	}
	for _, i := range r.instances {
		for n := 0; i.self && ctx.Err() == nil; n++ {
			err := r.returned(ctx, i)
			if err == nil {
				break
			}
			r.log.Warn("cannot report the restart of this process yet", "instance", i.name, "err", err)
			sleep(ctx, backoff(r.tuning.BackoffFirst, r.tuning.BackoffMost, n, i.name, n))
		}
	}
}

func (r *run) returned(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, 2*r.tuning.AckTimeout)
	defer cancel()
	key := r.keys.Self(i.name)
	b, err := r.Client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", key, err)
	}
	var rec selfRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		r.log.Warn("unreadable note about a restart, removed", "key", key, "err", err)
		return r.Client.Del(ctx, key).Err()
	}
	op := &Op{ID: rec.Op, Op: rec.Name, TraceID: rec.TraceID}
	a := r.ack(i, op, Done, OK, join(rec.Pulled, "restarted itself"))
	if rec.InvocationID == r.Identity.InvocationID && (rec.InvocationID != "" || rec.PID == r.Identity.PID) {
		a.Status, a.Detail = Failed, join(rec.Pulled, "not restarted: this is still the same invocation")
	}
	a.InvocationID = r.Identity.InvocationID
	if a.Revision, err = r.heads.read(ctx, r, i.Checkout); err != nil {
		a.Revision = ""
	}
	err = r.Client.push(ctx, r.tuning.AckTimeout, r.keys, []answer{{op: op, ack: a}}, func(ctx context.Context, p redis.Pipeliner) {
		p.Del(ctx, key)
	})
	if err != nil {
		return err
	}
	r.metrics.done(op.Op, a.Status)
	r.log.Info("reported the restart of this process", "op", rec.Op, "status", a.Status)
	if r.OnReturn != nil {
		r.OnReturn(ctx, Return{Op: rec.Op, Name: rec.Name, Ack: a, Note: rec.Note})
	}
	return nil
}
