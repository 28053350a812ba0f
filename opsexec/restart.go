package opsexec

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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
	t := time.NewTimer(d + residue(r.unit))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
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
