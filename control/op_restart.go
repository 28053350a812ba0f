package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// restart restarts the unit of each instance, one that is running; a stopped
// one stays stopped, and a failed one is restarted when it was named or
// failed ones were asked for.
var _ = registerOp(opSpec{Name: OpRestart, Restarts: true, act: actRestart})

func actRestart(ctx context.Context, t *task) Ack { return t.restart(ctx, "") }

// restart restarts the task's unit. After an update, pulled says what the pull
// did, and revision is what the service must come up on, "" for any.
func (t *task) restart(ctx context.Context, pulled string) Ack {
	if t.inst.self {
		return t.restartSelf(ctx, pulled)
	}
	began := time.Now()
	unlock, busy := t.shareCheckout(ctx)
	if busy != "" {
		return t.ack(Refused, Busy, "%s", join(pulled, busy))
	}
	defer unlock()
	t.run.heads.forget(t.inst.Checkout) // somebody may have pulled by hand
	head, err := t.run.heads.read(ctx, t.run, t.inst.Checkout)
	if err != nil {
		head = "" // the restart does not depend on it
	}
	if t.revision != "" && head != "" && head != t.revision {
		return t.ack(Done, Failed, "%s", join(pulled, fmt.Sprintf("not restarted: the checkout has moved on to %s since", clip(head, 12))))
	}
	settle := t.run.Config.TierSettle(t.inst.Tier)
	timeout := t.run.Config.TierDoneTimeout(t.inst.Tier)
	if timeout > 0 { // what the pull took of it is gone: the publisher's deadline knows nothing of it
		timeout = max(timeout-time.Since(began), 2*settle)
	}
	res := opsexec.RestartUnit(ctx, t.run.Units, t.inst.Unit, opsexec.RestartOptions{
		Settle:        settle,
		Timeout:       timeout,
		IncludeFailed: t.op.Args.IncludeFailed || t.named,
		Budget:        cmp.Or(t.run.Starts, &t.run.budget),
		Journal:       t.run.Journal,
	})
	t.run.beat.restarted(t.inst, res.After.InvocationID, head)
	a := t.ack(Done, restartStatus[res.Status], "%s", join(pulled, res.Summary))
	if a.Status == Busy && pulled == "" {
		a.Phase = Refused // nothing was done
	}
	if a.Status == Skipped {
		a.Reason = ReasonStopped
		if res.After.ActiveState == "failed" {
			a.Reason = ReasonFailed
		}
	}
	a.Revision, a.InvocationID = head, res.After.InvocationID
	a.Journal = clipJournal(res.Journal)
	return a
}

var restartStatus = map[opsexec.RestartStatus]Status{
	opsexec.RestartOK: OK, opsexec.RestartFailed: Failed, opsexec.RestartSkipped: Skipped,
	opsexec.RestartBusy: Busy, opsexec.RestartPending: Pending,
}

// shareCheckout waits until no pull of the service's checkout is running and
// keeps the next one off until unlock. A checkout that cannot be looked at does
// not keep its service from being restarted.
func (t *task) shareCheckout(ctx context.Context) (unlock func(), busy string) {
	if t.inst.Checkout == "" {
		return func() {}, ""
	}
	c, err := t.run.Tree.Resolve(t.inst.Checkout)
	if err != nil {
		return func() {}, ""
	}
	wait := t.run.tuning.RestartWait
	if d := t.run.Config.TierDoneTimeout(t.inst.Tier); d > 0 {
		wait = min(wait, d) // which is all the time that the publisher gives
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	l, err := t.run.Tree.Lock(ctx, c, opsexec.Shared)
	switch {
	case errors.Is(err, opsexec.ErrLocked):
		return nil, fmt.Sprintf("not restarted: a pull of %s has been running for %v", t.inst.Checkout, wait)
	case err != nil:
		return func() {}, ""
	}
	return func() { _ = l.Unlock() }, ""
}

// clipJournal keeps an ack small.
func clipJournal(lines []string) []string {
	if len(lines) > maxJournalLines {
		lines = lines[len(lines)-maxJournalLines:]
	}
	for i, l := range lines {
		lines[i] = oneLine(l, maxDetail)
	}
	return lines
}

// join makes one line of what a pull and a restart said.
func join(pulled, restarted string) string {
	if pulled == "" {
		return restarted
	}
	return pulled + "; " + restarted
}
