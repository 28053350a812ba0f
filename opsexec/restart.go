package opsexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// DefaultSettle is how long a restarted unit must stay up before its
	// restart counts as one: systemd also calls a job "done" whose process
	// dies 50 ms later, or whose program does not exist.
	DefaultSettle = 2 * time.Second

	// doneSlack is what a restart may take beyond the unit's own timeouts and
	// the settle time: PID 1's own work, and a verdict by polling.
	doneSlack = 3 * time.Second

	// A unit with an infinite timeout still needs a moment at which its
	// publisher, and a gateway behind it, stop waiting. maxPhase stands in for
	// an infinite stop or start timeout; maxDone bounds the sum, so that it
	// stays below the hour for which replies are kept.
	maxPhase = 10 * time.Minute
	maxDone  = 15 * time.Minute

	// The job's end is announced once, and not at all when the bus is lost or
	// systemd re-executes itself; the unit is looked at this often meanwhile.
	pollEvery = time.Second
	// confirm is how long an announcement may lag behind a look that found no
	// job any more.
	confirm = 250 * time.Millisecond

	// busPatience is how long a bus may be away before a restart is given up
	// that has not begun.
	busPatience = 5 * time.Second

	// The verdict does not wait for a journal that cannot be read.
	journalTimeout = 3 * time.Second
	// journalLag is for journald, which reads a unit's last words when it gets
	// to it.
	journalLag = 250 * time.Millisecond
)

// RestartStatus says what became of a restart.
type RestartStatus string

const (
	RestartOK      RestartStatus = "ok"      // a new invocation is up, and stayed up
	RestartFailed  RestartStatus = "failed"  // see Summary and Err
	RestartSkipped RestartStatus = "skipped" // the unit is stopped: left alone
	RestartBusy    RestartStatus = "busy"    // nothing was tried: try again later
	RestartPending RestartStatus = "pending" // systemd is still at it
)

// RestartOptions are the arguments of [RestartUnit] beside the unit. The zero
// value restarts an active unit, or one that systemd is starting; a stopped
// unit is never started.
type RestartOptions struct {
	// Settle is how long the unit must stay up; 0 means [DefaultSettle].
	Settle time.Duration
	// Timeout is when the verdict is due, settling included; then a job that
	// is still running makes it [RestartPending]. 0 means [DoneTimeout].
	Timeout time.Duration
	// IncludeFailed restarts a failed unit as well.
	IncludeFailed bool
	// Budget keeps the caller below the unit's start limit; nil: no limit.
	Budget *StartBudget
	// Journal, when set, reads the last lines that an invocation of the unit
	// logged; it is asked after a restart that failed.
	Journal func(ctx context.Context, unit, invocation string) []string
}

// RestartResult is what became of a restart.
type RestartResult struct {
	Status  RestartStatus
	Summary string // one line, fit for chat
	// Err is why the restart failed; [ErrNoSuchUnit] and the like are found in
	// it.
	Err     error
	Before  Unit     // as found
	After   Unit     // as last seen
	Journal []string // last lines of the failed invocation
}

// DoneTimeout is how long a restart of u may take until its outcome must be
// known: stop timeout + start timeout + settle + 3 s, which is 5 s on top of
// the unit's own timeouts for the default settle time (0 means that). An
// infinite timeout counts as ten minutes, and the whole is at most fifteen.
func DoneTimeout(u Unit, settle time.Duration) time.Duration {
	phase := func(d time.Duration) time.Duration {
		if d <= 0 {
			return maxPhase
		}
		return min(d, maxPhase)
	}
	if settle <= 0 {
		settle = DefaultSettle
	}
	return min(phase(u.TimeoutStop)+phase(u.TimeoutStart)+settle+doneSlack, maxDone)
}

// QueueRestart queues a restart of the caller's own unit and returns as soon
// as it is queued: the caller's process will not live to see the job's end.
// Errors are those of [Units.Restart], and [ErrNoSuchUnit] or [ErrUnitMasked].
func QueueRestart(ctx context.Context, units Units, unit string) error {
	u, err := units.Show(ctx, unit)
	if err == nil {
		err = loadError(u)
	}
	if err == nil {
		_, err = units.Restart(ctx, unit, false)
		err = permission(err, unit)
	}
	if err != nil {
		return fmt.Errorf("queueing a restart of %s: %w", unit, err)
	}
	return nil
}

// permission adds to systemd's refusal what would allow it.
func permission(err error, unit string) error {
	if !errors.Is(err, ErrNotAuthorized) {
		return err
	}
	return fmt.Errorf("%w: no polkit rule allows %s to %s for %s; sudo sgfleet doctor prints the one to add to %s",
		err, ManageUnits, userName(os.Geteuid()), unit, PolkitRules)
}

// RestartUnit restarts a unit and tells the truth about it: ok means that the
// job was done, and that a new invocation came up and stayed up for the settle
// time. It is a try-restart: a stopped unit stays stopped.
//
// When ctx ends first, the job that was queued goes on in systemd and the
// status is [RestartPending].
func RestartUnit(ctx context.Context, units Units, unit string, o RestartOptions) RestartResult {
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	r := &restart{units: units, unit: unit, o: o}
	r.run(ctx)
	if r.Status == RestartFailed && r.watched && o.Journal != nil && r.sleep(ctx, journalLag) {
		ctx, cancel := context.WithTimeout(ctx, journalTimeout)
		defer cancel()
		r.Journal = o.Journal(ctx, unit, r.judged)
	}
	return r.RestartResult
}

// restart is one run of [RestartUnit].
type restart struct {
	units   Units
	unit    string
	o       RestartOptions
	began   time.Time
	watched bool   // a job was, or may have been, queued
	judged  string // the invocation that the verdict is about

	RestartResult
}

func (r *restart) run(ctx context.Context) {
	r.began = time.Now()
	u, err := r.firstLook(ctx)
	if err != nil {
		r.fail(fmt.Errorf("reading its state: %w", err))
		return
	}
	r.Before, r.After = u, u
	timeout := r.o.Timeout
	if timeout <= 0 {
		timeout = DoneTimeout(u, r.o.Settle)
	}
	// The verdict is due at timeout, so the job must have ended before the
	// settle time that follows it.
	due, cancel := context.WithTimeout(ctx, max(timeout-r.o.Settle, timeout/2)+residue(r.unit))
	defer cancel()

	if !r.mayRestart(ctx, due) {
		return
	}
	s, again := r.o.Budget.take(r.Before)
	if s == nil {
		r.end(RestartBusy, "not restarted: systemd would stop it for good after %d starts in %s; possible again in %s",
			r.Before.StartLimitBurst, short(r.Before.StartLimitInterval), short(again))
		return
	}
	ch, err := r.units.Restart(due, r.unit, !r.o.IncludeFailed || r.Before.ActiveState != "failed")
	if err != nil && !errors.Is(err, ErrBusLost) {
		s.unused()
		r.fail(fmt.Errorf("not restarted: %w", permission(err, r.unit)))
		return
	}
	r.watched = true
	result, over := r.awaitJob(due, ch)
	if over {
		r.judge(ctx, due, result)
	} else {
		r.pending(ctx)
	}
	late := time.Duration(0)
	if r.Status == RestartPending {
		late = max(0, DoneTimeout(r.Before, r.o.Settle)-time.Since(r.began))
	}
	s.end(late)
}

// firstLook reads the unit's state, and has some patience with a bus that is
// away: dbus-daemon is restarting, or systemd executing itself anew.
func (r *restart) firstLook(ctx context.Context) (Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, busPatience)
	defer cancel()
	for {
		u, err := r.units.Show(ctx, r.unit)
		if !errors.Is(err, ErrBusLost) || !r.sleep(ctx, pollEvery) {
			return u, err
		}
	}
}

// mayRestart decides from the unit's present state whether to queue a job at
// all; when not, it has ended the restart.
func (r *restart) mayRestart(ctx, due context.Context) bool {
	if err := loadError(r.Before); err != nil {
		r.fail(err)
		return false
	}
	// Somebody is stopping it, or restarting it: what comes of that decides.
	for r.After.ActiveState == "deactivating" {
		if !r.sleep(due, pollEvery) {
			r.end(RestartBusy, "not restarted: it is being stopped, for %s so far", short(time.Since(r.began)))
			return false
		}
		r.look(due)
	}
	switch u := r.After; {
	case r.fresh(u):
		// Restarted by another since we were asked: that serves as well.
		r.watched = true
		r.judge(ctx, due, "done")
		return false
	case running(u), u.ActiveState == "activating":
		r.Before = u
		return true
	case u.ActiveState == "failed" && r.o.IncludeFailed:
		r.Before = u
		return true
	case u.ActiveState == "failed":
		r.end(RestartSkipped, "left alone: it has failed (%s)", reason(u))
	default:
		r.end(RestartSkipped, "left alone: it is stopped")
	}
	return false
}

// awaitJob waits until the job has ended: announced on the channel, or seen by
// looking at the unit (result ""). over is false when due came first.
func (r *restart) awaitJob(due context.Context, ch <-chan string) (result string, over bool) {
	every := pollEvery + residue(r.unit)
	poll := time.NewTimer(every)
	defer poll.Stop()
	idle := false // the last look found no job
	for {
		select {
		case result = <-ch:
			return result, true
		case <-due.Done():
		case <-poll.C:
		}
		select { // an announcement of the same instant comes first
		case result = <-ch:
			return result, true
		default:
		}
		if due.Err() != nil {
			return "", false
		}
		if ok := r.look(due); !ok || r.After.Job != 0 {
			idle = false
			poll.Reset(every)
			continue
		}
		if idle {
			return "", true
		}
		idle = true
		poll.Reset(confirm)
	}
}
