package opsexec

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	joinPoll = 500 * time.Millisecond
	// takeoverPolls is how many polls old a lock must be before its holder may
	// be found dead: it takes the flock right after the lock.
	takeoverPolls = 2
	// takeoverWait is how long a free flock is tried for; one attempt.
	takeoverWait = 20 * time.Millisecond
	// lostPolls is how many polls in a row may fail before Redis counts as
	// unreachable.
	lostPolls = 3
	// tidyTimeout limits what must still be told Redis when ctx has ended.
	tidyTimeout = 5 * time.Second
)

// alone pulls under the flock without the dedupe lock; why is what was wrong
// with that, nil when none was wanted.
func (p *puller) alone(ctx context.Context, why error) PullResult {
	fl, err := p.flock(ctx, time.Now().Add(p.patience()))
	if err != nil {
		return p.failed(PullResult{}, err)
	}
	defer fl.Unlock()
	r := p.locked(ctx, fl)
	if why != nil {
		r.Summary += fmt.Sprintf(" (not deduped: %v)", why)
	}
	return r
}

// patience is how long others are waited for: a dead holder's lock has ended
// by then, and so has a live one's pull, and two polls have seen it.
func (p *puller) patience() time.Duration {
	return max(p.o.LockTTL, p.o.Timeout+DefaultGrace) + 2*joinPoll
}

func (p *puller) flock(ctx context.Context, until time.Time) (Lock, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return p.tree.Lock(ctx, p.c, Exclusive)
}

// deduped contends for the dedupe lock: its holder pulls, the others join that
// pull, or take it over when the holder has died.
func (p *puller) deduped(ctx context.Context) PullResult {
	until := time.Now().Add(p.patience())
	var missed *seen
	for {
		held, holder, at, err := p.o.Lock.TryLock(ctx, p.o.LockTTL)
		switch {
		case ctx.Err() != nil:
			return p.failed(PullResult{}, context.Cause(ctx))
		case err != nil:
			return p.alone(ctx, err)
		case held:
			return p.asHolder(ctx, until, at, missed)
		}
		if missed == nil {
			missed = p.look(ctx)
		}
		if r := p.join(ctx, holder, until, missed); r != nil {
			return *r
		}
	}
}

// asHolder pulls as the holder of the dedupe lock.
func (p *puller) asHolder(ctx context.Context, until time.Time, at int64, missed *seen) PullResult {
	defer p.release(ctx)
	fl, err := p.flock(ctx, until)
	if err != nil {
		return p.failed(PullResult{}, err)
	}
	defer fl.Unlock()
	return p.once(ctx, fl, at, missed)
}

// takeOver pulls in place of a holder that died: it holds the flock, the lock is
// left to its life. The flock alone makes it the only one.
func (p *puller) takeOver(ctx context.Context, fl Lock, missed *seen) PullResult {
	defer fl.Unlock()
	held, _, at, err := p.o.Lock.TryLock(ctx, p.o.LockTTL)
	if err != nil {
		r := p.locked(ctx, fl)
		r.Summary += fmt.Sprintf(" (not deduped: %v)", err)
		return r
	}
	if held {
		defer p.release(ctx)
	}
	return p.once(ctx, fl, at, missed)
}

// once pulls under the flock, unless somebody has done so already, and records
// the outcome while the flock is still held, so that whoever gets it next knows.
func (p *puller) once(ctx context.Context, fl Lock, at int64, missed *seen) PullResult {
	if o, err := p.o.Lock.Outcome(ctx); err == nil && p.satisfies(o, missed) {
		return joined(o)
	}
	r := p.locked(ctx, fl)
	if r.Busy || ctx.Err() != nil {
		return r // nothing that others could join: let them try
	}
	o := PullOutcome{
		OpID: p.o.OpID, Holder: p.o.InstanceID, Started: at, Pinned: p.o.Revision,
		Old: r.Old, New: r.New,
	}
	if !r.OK {
		o.Error = ChatLine(r.Summary, p.git.secrets()...)
	}
	if err := p.o.Lock.SetOutcome(ctx, o); err != nil {
		r.Summary += fmt.Sprintf(" (not told the others: %v)", err)
	}
	return r
}

func (p *puller) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	_ = p.o.Lock.Unlock(ctx) // it ends by itself
}

// seen is the outcome that was there when the lock was first found taken.
type seen struct{ started int64 }

func (p *puller) look(ctx context.Context) *seen {
	o, err := p.o.Lock.Outcome(ctx)
	if err != nil || o == nil {
		return &seen{}
	}
	return &seen{o.Started}
}

// satisfies says whether the outcome o is that of a pull that did what this one
// is asked to.
func (p *puller) satisfies(o *PullOutcome, missed *seen) bool {
	switch {
	case o == nil:
		return false
	case p.o.OpID != "" && o.OpID == p.o.OpID:
		return true
	case o.Pinned != p.o.Revision:
		return false
	case p.o.IssuedAt != 0:
		return o.Started >= p.o.IssuedAt
	case p.o.OpID == "":
		return missed != nil && o.Started != missed.started
	}
	return false
}

// joined is the result of having let somebody else pull.
func joined(o *PullOutcome) PullResult {
	r := PullResult{OK: o.Error == "", Joined: true, Holder: o.Holder, Old: o.Old, New: o.New}
	switch {
	case o.Error != "":
		r.Summary = fmt.Sprintf("joined the pull of %s: %s", o.Holder, o.Error)
	case o.Old == o.New:
		r.Summary = fmt.Sprintf("joined the pull of %s: up to date at %s", o.Holder, shortRev(o.New))
	default:
		r.Summary = fmt.Sprintf("joined the pull of %s: %s..%s", o.Holder, shortRev(o.Old), shortRev(o.New))
	}
	return r
}

// join waits for the holder's outcome. It returns nil when the lock has become
// free without one: contend again.
func (p *puller) join(ctx context.Context, holder PullHolder, until time.Time, missed *seen) *PullResult {
	result := func(r PullResult) *PullResult { return &r }
	failures := 0
	for polls := 1; ; polls++ {
		if !pause(ctx, joinPoll) {
			return result(p.failed(PullResult{}, context.Cause(ctx)))
		}
		// In this order: a holder sets the outcome before it lets go.
		now, err1 := p.o.Lock.Holder(ctx)
		o, err2 := p.o.Lock.Outcome(ctx)
		if err := errors.Join(err1, err2); err != nil {
			if failures++; failures >= lostPolls {
				return result(p.alone(ctx, err))
			}
			continue
		}
		failures = 0
		if p.satisfies(o, missed) {
			return result(joined(o))
		}
		if now.Instance == "" {
			return nil
		}
		if now != holder {
			holder, polls = now, 1
		}
		if !holder.Foreign && polls >= takeoverPolls {
			if fl, err := p.flock(ctx, time.Now().Add(takeoverWait)); err == nil {
				return result(p.takeOver(ctx, fl, missed))
			}
		}
		if time.Now().After(until) {
			return result(PullResult{Busy: true, Summary: fmt.Sprintf("busy: %s has been pulling for %v", holder.Instance, p.patience())})
		}
	}
}
