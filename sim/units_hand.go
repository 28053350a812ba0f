package sim

import (
	"strconv"
	"time"
)

// start starts a unit that is down; why is boot, recover or join.
func (u *unit) start(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.runningLocked() && u.job == nil {
		u.startLocked(why)
	}
}

// alreadyUp is a unit that was active before the run began.
func (u *unit) alreadyUp(boot time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.starts++
	u.invocation = u.w.id("invocation", u.h.name, u.name, strconv.Itoa(u.starts))
	if u.tree != nil {
		u.revision = u.tree.headNow()
	}
	u.result = "success"
	u.setLocked("active", "running")
	if u.proc == nil {
		return
	}
	u.gen++
	gen := u.gen
	u.w.dir.after(boot, "boot "+u.proc.name, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.gen == gen {
			u.main = u.proc.boot(u.invocation)
		}
	})
}

// wasDown is a unit that was not up when the run began.
func (u *unit) wasDown(state string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.result = "success"
	u.setLocked(state, "dead")
	if state == "failed" {
		u.result, u.sub, u.exit = "exit-code", "failed", "exit status 1"
	}
}

// stop is systemctl stop: a job that is under way is canceled.
func (u *unit) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == "inactive" || u.state == "failed" {
		return
	}
	u.finishLocked("canceled")
	u.stopLocked("stop")
}

// crash is the main process being killed; the unit stays down until something
// starts it.
func (u *unit) crash() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == "inactive" || u.state == "failed" {
		return
	}
	u.exit = "signal KILL"
	u.killLocked("crash")
	u.failedLocked("signal", "failed")
}

// lose is the machine losing power: nobody is told.
func (u *unit) lose() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state == "inactive" {
		return
	}
	u.main = nil
	u.job = nil // its waiters are dead as well
	u.downLocked("crash", "inactive", "success")
}

// terminate is SIGTERM.
func (inc *incarnation) terminate() {
	inc.mu.Lock()
	inc.stopping = true
	inc.mu.Unlock()
	inc.cancel()
}
