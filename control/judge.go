package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sgfleet/sgfleet/fleet"
)

// judge asks Redis what the remaining steps need (its time, the holds, the
// replay guards) in one round trip and takes the candidates through them.
func (r *run) judge(ctx context.Context, ask []*candidate) (accepted []*job, answers []answer) {
	no := func(c *candidate, reason RejectReason, format string, args ...any) {
		answers = append(answers, r.refusal(&c.job, statusOf[reason], reason, fmt.Sprintf(format, args...)))
	}
	fresh := ask[:0]
	for _, c := range ask {
		if c.guarded() && !r.seen.add(c.inst.name+" "+c.op.ID) {
			no(c, RejectDuplicate, "this op was received before")
			continue
		}
		fresh = append(fresh, c)
	}
	now, holds, own, err := r.ask(ctx, fresh)
	if err != nil {
		// Whether it is held, or was seen before, is not known: do not act.
		r.log.Error("cannot ask redis about holds and replays, refusing", "ops", len(fresh), "err", err)
		for _, c := range fresh {
			no(c, RejectGuard, "holds and replays could not be checked: %v", err)
		}
		return nil, answers
	}
	room := map[*instance]int{}
	for _, c := range fresh {
		if h, held := fleet.Held(holds, now, c.inst.Member()); held {
			no(c, RejectHeld, "%v", h)
			continue
		}
		if c.late == nil {
			c.late = r.tooLate(c, now)
		}
		if c.late != nil {
			no(c, c.late.Reason, "%s", c.late.Detail)
			continue
		}
		if !own(c) {
			no(c, RejectDuplicate, "this op was received before")
			continue
		}
		if r.Config.Mode == fleet.ModeObserve {
			a := r.ack(c.inst, c.op, Done, Skipped, would(c.op.Op, c.inst))
			a.Reason = ReasonObserve
			r.metrics.done(c.op.Op, a.Status)
			answers = append(answers, answer{op: c.op, ack: a, only: true})
			continue
		}
		if _, ok := room[c.inst]; !ok {
			room[c.inst] = cap(c.inst.queue) - len(c.inst.queue)
		}
		if why := r.cooldowns.begin(c.op.Op, c.inst.Unit); why != "" {
			no(c, RejectCooldown, "%s", why)
			continue
		}
		if room[c.inst] == 0 {
			r.cooldowns.end(&c.job, false)
			no(c, RejectBusy, "%d ops are waiting for this service already", cap(c.inst.queue))
			continue
		}
		room[c.inst]--
		accepted = append(accepted, &c.job)
	}
	return accepted, answers
}

// would says what a daemon in act mode would do to i.
func would(op string, i *instance) string {
	spec := opSpecs[op]
	switch {
	case !spec.Pulls:
		return "would " + op + " " + i.Unit
	case i.Checkout == "" && !spec.Restarts:
		return "would do nothing: the service has no checkout to pull"
	case i.Checkout == "":
		return "would restart " + i.Unit
	case !spec.Restarts:
		return "would pull " + i.Checkout
	}
	return "would pull " + i.Checkout + " and restart " + i.Unit
}

// ask is judge's one round trip. own reports whether a candidate's replay guard
// is ours: set by this very question.
func (r *run) ask(ctx context.Context, cs []*candidate) (now fleet.Time, holds []fleet.Hold, own func(*candidate) bool, err error) {
	var clock *redis.TimeCmd
	var hold *redis.MapStringStringCmd
	attempt := 0
	err = r.Client.insist(ctx, r.tuning.AckTimeout, func(ctx context.Context, rc redis.UniversalClient) error {
		attempt++
		_, err := rc.Pipelined(ctx, func(p redis.Pipeliner) error {
			clock = p.Time(ctx)
			hold = p.HGetAll(ctx, r.keys.Hold())
			for _, c := range cs {
				if !c.guarded() {
					continue
				}
				key := r.keys.Seen(c.inst.name, c.op.ID)
				c.guard = p.SetNX(ctx, key, r.nonce, SeenLife)
				if attempt > 1 {
					c.guardV = p.Get(ctx, key)
				}
			}
			return nil
		})
		if errors.Is(err, redis.Nil) {
			err = nil // a guard whose life ended between SET and GET
		}
		return err
	})
	if err != nil {
		return 0, nil, nil, err
	}
	now = fleet.TimeOf(clock.Val())
	r.clock.set(now)
	holds, bad := fleet.DecodeHolds(r.keys, hold.Val())
	for _, e := range bad {
		r.log.Warn("bad hold", "err", e)
	}
	// A guard that was there already is ours all the same when an earlier
	// attempt of this question set it and its reply was lost: it carries this
	// process's nonce, and this process asks about an op once (see seen).
	return now, holds, func(c *candidate) bool {
		return !c.guarded() || c.guard.Val() || c.guardV != nil && c.guardV.Val() == r.nonce
	}, nil
}

// recent remembers the newest of what was added to it, whatever becomes of
// Redis.
type recent struct {
	set  map[string]bool
	ring []string
	next int
}

// recentSize covers every op that can still be alive, short of a flood; beyond
// it the guard in Redis remembers.
const recentSize = 4096

// add reports false when s was added before.
func (c *recent) add(s string) bool {
	if c.set[s] {
		return false
	}
	if c.set == nil {
		c.set = map[string]bool{}
	}
	if len(c.ring) < recentSize {
		c.ring = append(c.ring, s)
	} else {
		delete(c.set, c.ring[c.next])
		c.ring[c.next] = s
		c.next = (c.next + 1) % recentSize
	}
	c.set[s] = true
	return true
}
