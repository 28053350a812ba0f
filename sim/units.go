package sim

import (
	"cmp"
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/opsexec"
)

// systemd's own defaults, and the share of a restart that stopping takes.
const (
	startLimitBurst    = 5
	startLimitInterval = 10 * time.Second
	timeoutStart       = 90 * time.Second
	timeoutStop        = 90 * time.Second
	restartPause       = 100 * time.Millisecond
	stopShare          = 0.3
	// dieAfter is when a service that cannot live dies after its start: late
	// enough for systemd to have called the job done.
	dieAfter = 50 * time.Millisecond
)

// How a faulty unit fails; see fail_restart.
const (
	failStart    = "failed"   // the start itself fails
	failDead     = "dead"     // it dies right after systemd called the restart done
	failFlapping = "flapping" // the same, and systemd starts it again and again
)

// unit is one unit of the fake systemd.
type unit struct {
	w        *World
	h        *host
	name     string
	instance string // "" for the host daemon's own unit
	tier     string
	tree     *checkout // nil: nothing to pull
	proc     *process  // its main process, when that runs a daemon
	rnd      *rand.Rand

	mu         sync.Mutex
	state, sub string
	result     string
	exit       string
	invocation string
	revision   string // HEAD when this invocation began
	starts     int
	nRestarts  int
	startedAt  []time.Time // within the start limit's interval
	entered    time.Time
	downSince  time.Time
	job        *unitJob
	jobs       uint32
	main       *incarnation
	gen        int // counts the changes of state: a callback of an earlier one is void

	masked bool
	slow   []float64 // factors of the slow_restart faults in force
	fail   []string  // modes of the fail_restart faults in force
}

// unitJob is a job in systemd's queue.
type unitJob struct {
	id      uint32
	waiters []chan string
	op      string
	cause   Ref
	queued  time.Time
}

// simUnits is systemd as a process sees it.
type simUnits struct{ inc *incarnation }

var _ opsexec.Units = simUnits{}

// Restart implements [opsexec.Units].
func (s simUnits) Restart(ctx context.Context, name string, try bool) (<-chan string, error) {
	if err := s.inc.gate(ctx); err != nil {
		return nil, err
	}
	u := s.inc.proc.host.unit(name)
	if u == nil {
		return nil, opsexec.ErrNoSuchUnit
	}
	op, cause := u.w.facts.actingFor(u.instanceName(), s.inc)
	return u.restart(s.inc.proc, try, op, cause)
}

// Show implements [opsexec.Units].
func (s simUnits) Show(ctx context.Context, name string) (opsexec.Unit, error) {
	if err := s.inc.gate(ctx); err != nil {
		return opsexec.Unit{}, err
	}
	u := s.inc.proc.host.unit(name)
	if u == nil {
		return opsexec.Unit{Name: name, LoadState: "not-found", ActiveState: "inactive", SubState: "dead"}, nil
	}
	return u.show(), nil
}

func (u *unit) show() opsexec.Unit {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := opsexec.Unit{
		Name: u.name, LoadState: "loaded", ActiveState: u.state, SubState: u.sub, Result: u.result, Exit: u.exit,
		InvocationID: u.invocation, NRestarts: u.nRestarts, ActiveEnter: u.entered,
		StartLimitBurst: startLimitBurst, StartLimitInterval: startLimitInterval,
		TimeoutStart: timeoutStart, TimeoutStop: timeoutStop,
	}
	if u.masked {
		s.LoadState = "masked"
	}
	if u.job != nil {
		s.Job = u.job.id
	}
	if u.main != nil {
		s.MainPID = u.main.pid
	}
	return s
}

// instanceName is the instance, or the daemon's own name as a target has it.
func (u *unit) instanceName() string { return cmp.Or(u.instance, "sgfleet@"+u.h.name) }

func (u *unit) event(kind string, attrs ...string) Event {
	e := Event{
		Actor: "systemd@" + u.h.name, Kind: kind, Host: u.h.name, Instance: u.instance,
		Attrs: map[string]string{"unit": u.name},
	}
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			e.Attrs[attrs[i]] = attrs[i+1]
		}
	}
	if u.job != nil {
		e.Op = u.job.op
	}
	return e
}

func (u *unit) addLocked(e Event) Ref {
	var cause Ref
	if u.job != nil {
		cause = u.job.cause
	}
	return u.w.trace.Add(e, cause)
}

func (u *unit) runningLocked() bool { return u.state == "active" || u.state == "activating" }

// isActive reports whether systemd calls the unit active.
func (u *unit) isActive() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == "active"
}

// restart queues a restart job; by is who asked.
func (u *unit) restart(by *process, try bool, op string, cause Ref) (<-chan string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	ch := make(chan string, 1)
	switch {
	case u.masked:
		return nil, opsexec.ErrUnitMasked
	case try && u.job == nil && !u.runningLocked():
		ch <- "done" // systemd leaves it alone and calls that done
		return ch, nil
	}
	e := u.event(EvRestartQueued, "invocation", u.invocation)
	e.Op = op
	if by != nil {
		e.Attrs["process"] = by.name
		if by.unit == u {
			e.Attrs["self"] = "true"
		}
	}
	if u.job != nil {
		e.Attrs["merged"] = "true"
		u.w.trace.Add(e, cause)
		u.job.waiters = append(u.job.waiters, ch)
		return ch, nil
	}
	u.jobs++
	u.job = &unitJob{id: u.jobs, waiters: []chan string{ch}, op: op, queued: time.Now()}
	u.job.cause = u.w.trace.Add(e, cause)
	// PID 1 gets to it a little later than the caller hears of the job.
	u.laterLocked(time.Duration(1+u.rnd.Int64N(int64(4*time.Millisecond))), func() {
		if u.state == "active" || u.state == "activating" {
			u.stopLocked("restart")
			return
		}
		u.startLocked("restart")
	})
	return ch, nil
}

// laterLocked schedules fn, with u.mu held, unless the state changes before.
func (u *unit) laterLocked(d time.Duration, fn func()) {
	u.gen++
	gen := u.gen
	u.w.dir.after(d, "unit "+u.h.name+"/"+u.name, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.gen == gen {
			fn()
		}
	})
}

func (u *unit) setLocked(state, sub string) { u.state, u.sub, u.entered = state, sub, time.Now() }

func (u *unit) factorLocked() float64 {
	f := 1.0
	for _, s := range u.slow {
		f *= s
	}
	return f
}

// stopLocked begins to stop the unit, as the first half of a restart or for
// good.
func (u *unit) stopLocked(why string) {
	u.setLocked("deactivating", "stop-sigterm")
	if u.main != nil {
		u.main.terminate()
	}
	took := time.Duration(float64(u.w.plan.Models.Restart.draw(u.rnd)) * stopShare * u.factorLocked())
	began := time.Now()
	u.laterLocked(min(took, timeoutStop), func() { u.awaitMainLocked(why, began) })
}

// awaitMainLocked waits for the main process to end, and kills it when it does
// not.
func (u *unit) awaitMainLocked(why string, began time.Time) {
	if u.main != nil && u.main.alive() {
		if time.Since(began) < timeoutStop {
			u.laterLocked(min(50*time.Millisecond, timeoutStop-time.Since(began)), func() { u.awaitMainLocked(why, began) })
			return
		}
		main := u.main
		u.mu.Unlock() // the fence calls back into the world
		main.crash(deathCrash)
		u.mu.Lock()
	}
	u.main = nil
	u.downLocked(why, "inactive", "success")
	if why == "restart" {
		u.startLocked("restart")
	}
}

// downLocked records that the unit's processes are gone.
func (u *unit) downLocked(why, state, result string) {
	u.downSince = time.Now()
	u.gen++
	u.result = result
	u.setLocked(state, map[string]string{"inactive": "dead", "failed": "failed"}[state])
	e := u.event(EvUnitStopped, "invocation", u.invocation, "why", why, "state", state)
	u.addLocked(e)
}

// startLocked starts the unit.
func (u *unit) startLocked(why string) {
	now := time.Now()
	for len(u.startedAt) > 0 && now.Sub(u.startedAt[0]) >= startLimitInterval {
		u.startedAt = u.startedAt[1:]
	}
	if len(u.startedAt) >= startLimitBurst {
		u.addLocked(u.event(EvStartLimit))
		u.failedLocked("start-limit-hit", "failed")
		return
	}
	u.startedAt = append(u.startedAt, now)
	u.starts++
	u.invocation = u.w.id("invocation", u.h.name, u.name, strconv.Itoa(u.starts))
	u.revision = ""
	if u.tree != nil {
		u.revision = u.tree.headNow()
	}
	u.setLocked("activating", "start")
	u.addLocked(u.event(EvUnitStarted, "invocation", u.invocation, "revision", u.revision, "why", why))
	model := u.w.plan.Models.Restart
	took := time.Duration(float64(model.draw(u.rnd)) * (1 - stopShare) * u.factorLocked())
	boot := u.w.plan.Models.Boot.draw(u.rnd)
	fails := model.fails(u.rnd)
	if why == "boot" || why == "recover" {
		fails = false
	}
	mode := ""
	if fails {
		mode = failStart
	}
	if len(u.fail) > 0 {
		mode = u.fail[len(u.fail)-1]
	}
	if u.proc != nil && mode != failStart {
		gen, invocation := u.gen+1, u.invocation
		u.w.dir.after(min(boot, took*4/5), "boot "+u.proc.name, func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			if u.gen == gen && u.invocation == invocation {
				u.main = u.proc.boot(invocation)
			}
		})
	}
	switch {
	case took > timeoutStart:
		u.laterLocked(timeoutStart, func() { u.killLocked("timeout"); u.failedLocked("timeout", "timeout") })
	case mode == failStart:
		u.laterLocked(took, func() { u.exit = "exit status 1"; u.killLocked("failed"); u.failedLocked("exit-code", "failed") })
	default:
		u.laterLocked(took, func() { u.activeLocked(why, mode) })
	}
}

// killLocked ends the main process, if there is one, without its leave.
func (u *unit) killLocked(why string) {
	if main := u.main; main != nil {
		u.main = nil
		u.mu.Unlock()
		main.crash(deathCrash)
		u.mu.Lock()
	}
	u.downLocked(why, "inactive", "success")
}

func (u *unit) failedLocked(result, job string) {
	u.gen++
	u.result = result
	u.setLocked("failed", "failed")
	u.addLocked(u.event(EvUnitFailed, "result", result))
	u.finishLocked(job)
}

func (u *unit) activeLocked(why, mode string) {
	u.result = "success"
	u.setLocked("active", "running")
	down := ""
	if !u.downSince.IsZero() {
		down = strconv.FormatInt(time.Since(u.downSince).Milliseconds(), 10)
	}
	u.addLocked(u.event(EvUnitActive, "invocation", u.invocation, "revision", u.revision, "why", why, "down_ms", down))
	u.finishLocked("done")
	if mode == failDead || mode == failFlapping {
		u.laterLocked(dieAfter, func() { u.dieLocked(mode == failFlapping) })
	}
}

// dieLocked is the main process ending by itself.
func (u *unit) dieLocked(again bool) {
	u.exit = "exit status 1"
	u.killLocked("died")
	if !again {
		u.failedLocked("exit-code", "failed")
		return
	}
	u.nRestarts++
	u.result = "exit-code"
	u.setLocked("activating", "auto-restart")
	u.laterLocked(restartPause, func() { u.startLocked("auto") })
}

// finishLocked ends the job, if there is one.
func (u *unit) finishLocked(result string) {
	j := u.job
	if j == nil {
		return
	}
	u.addLocked(u.event(EvRestartFinished, "result", result, "invocation", u.invocation, "active", strconv.FormatBool(u.state == "active")))
	u.job = nil
	for i, ch := range j.waiters { // buffered
		if i == 0 {
			ch <- result
			continue
		}
		u.w.dir.after(time.Duration(i)*time.Millisecond, "job "+u.h.name+"/"+u.name, func() { ch <- result })
	}
}

// mainExited is the main process having ended in an orderly way: asked to, or
// not.
func (u *unit) mainExited(inc *incarnation, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.main != inc || u.state == "deactivating" {
		return // awaitMainLocked sees to it
	}
	u.exit = "exit status 0"
	if err != nil {
		u.exit = "exit status 1"
	}
	u.main = nil
	u.downLocked("died", "inactive", "exit-code")
	u.nRestarts++
	u.setLocked("activating", "auto-restart")
	u.laterLocked(2*time.Second, func() { u.startLocked("auto") })
}
