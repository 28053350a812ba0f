package opsexec

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"
)

// judge finds out, once the job has ended, whether the unit was restarted and
// stays up.
func (r *restart) judge(ctx, due context.Context, result string) {
	for {
		if !r.awaitIdle(due) {
			r.pending(ctx)
			return
		}
		u := r.After
		r.judged = u.InvocationID
		if r.judgeStart(u, result) {
			return
		}
		if !r.sleep(ctx, r.o.Settle) || !r.lookAgain(ctx) {
			r.pending(ctx)
			return
		}
		switch v := r.After; {
		case v.Job != 0:
			// Another job for the unit meanwhile: wait for what it does.
		case !running(v):
			r.fail(fmt.Errorf("died after it was started: %s", reason(v)))
			return
		case v.NRestarts > u.NRestarts:
			r.fail(fmt.Errorf("died after it was started, and systemd has started it again, %d so far", v.NRestarts-u.NRestarts))
			return
		case v.Result != "" && v.Result != "success":
			r.fail(fmt.Errorf("started, but its result is %s", reason(v)))
			return
		case v.InvocationID == u.InvocationID:
			r.end(RestartOK, "restarted in %s", short(time.Since(r.began)-r.o.Settle))
			return
		}
		if due.Err() != nil {
			r.pending(ctx)
			return
		}
		result = "done"
	}
}

// judgeStart judges the unit right after the job: it has ended the restart
// when there is no use in waiting for the unit to settle.
func (r *restart) judgeStart(u Unit, result string) (ended bool) {
	fresh := r.fresh(u)
	switch {
	case result == "canceled" && !running(u):
		r.fail(errors.New("the restart was canceled by a stop of the unit, which is stopped now"))
	case result == "canceled" && !fresh:
		r.fail(errors.New("the restart was canceled by another job; the old process still runs"))
	case result != "done" && result != "canceled" && result != "" && result != "skipped":
		r.fail(fmt.Errorf("systemd says %q: %s", result, reason(u)))
	case !fresh && u.ActiveState == "inactive":
		// systemd found nothing running to restart.
		r.end(RestartSkipped, "left alone: it was stopped meanwhile")
	case !fresh && result == "":
		r.fail(errors.New("no restart was seen and none is queued; the old process still runs"))
	case !fresh:
		r.fail(errors.New("systemd says that it is done, but the old process still runs"))
	case !running(u):
		r.fail(fmt.Errorf("died right after it was started: %s", reason(u)))
	default:
		return false
	}
	return true
}

// awaitIdle looks at the unit until no job of it is left.
func (r *restart) awaitIdle(due context.Context) bool {
	for {
		if r.lookAgain(due) && r.After.Job == 0 && r.After.ActiveState != "deactivating" {
			return true
		}
		if !r.sleep(due, pollEvery) {
			return false
		}
	}
}

// look reads the unit's state; when that fails, After stays as it was.
func (r *restart) look(ctx context.Context) bool {
	u, err := r.units.Show(ctx, r.unit)
	if err != nil {
		return false
	}
	r.After = u
	return true
}

// lookAgain looks until it can: the bus may be away for a while.
func (r *restart) lookAgain(ctx context.Context) bool {
	for !r.look(ctx) {
		if !r.sleep(ctx, pollEvery) {
			return false
		}
	}
	return true
}

func (r *restart) sleep(ctx context.Context, d time.Duration) bool {
	return pause(ctx, d+residue(r.unit))
}

func (r *restart) end(status RestartStatus, format string, args ...any) {
	r.Status = status
	r.Summary = ChatLine(r.unit + ": " + fmt.Sprintf(format, args...))
}

func (r *restart) fail(err error) {
	r.Err = fmt.Errorf("%s: %w", r.unit, err)
	r.end(RestartFailed, "%v", err)
}

func (r *restart) pending(ctx context.Context) {
	if ctx.Err() != nil {
		r.end(RestartPending, "restart queued, but not waited for: %v", context.Cause(ctx))
		return
	}
	after := short(time.Since(r.began))
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r.look(ctx)
	r.end(RestartPending, "systemd is still restarting it after %s (%s, %s)", after, r.After.ActiveState, r.After.SubState)
}

// fresh says that the unit was started anew since we were asked. systemd
// forgets the invocation of a stopped unit that nothing refers to.
func (r *restart) fresh(u Unit) bool {
	return u.InvocationID != "" && u.InvocationID != r.Before.InvocationID
}

// running says that the unit is up. It may be reloading its configuration
// (refreshing, since systemd 257).
func running(u Unit) bool {
	return u.ActiveState == "active" || u.ActiveState == "reloading" || u.ActiveState == "refreshing"
}

// loadError is why systemd cannot manage the unit at all, if so.
func loadError(u Unit) error {
	switch u.LoadState {
	case "not-found":
		return ErrNoSuchUnit
	case "masked":
		return ErrUnitMasked
	case "error", "bad-setting":
		return fmt.Errorf("systemd cannot load the unit (%s): see systemd-analyze verify %s", u.LoadState, u.Name)
	}
	return nil
}

// reason puts what systemd says about a unit that is not up into words.
func reason(u Unit) string {
	state := u.ActiveState
	if u.SubState != "" && u.SubState != u.ActiveState {
		state += ", " + u.SubState
	}
	switch u.Result {
	case "", "success":
		if u.Exit != "" {
			return u.Exit + " (" + state + ")"
		}
		return state
	case "start-limit-hit":
		return "start limit hit, it stays down until: systemctl reset-failed " + u.Name + " && systemctl start " + u.Name
	case "exit-code", "signal", "core-dump":
		if u.Exit != "" {
			return u.Exit + " (" + state + ")"
		}
	}
	return u.Result + " (" + state + ")"
}

// residue is below a millisecond and different for most units. Every wait of a
// restart is longer by it: so it ends in an instant of its own, not together
// with that of another unit, or with a change that comes after whole seconds,
// and what is seen first never depends on the scheduler.
func residue(unit string) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(unit))
	return time.Duration(h.Sum32() % uint32(time.Millisecond))
}

// short renders a duration for people.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
