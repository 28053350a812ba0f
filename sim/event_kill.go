package sim

import (
	"strconv"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// killLockHolder crashes the process that holds the pull lock of a checkout
// while it pulls.
type killLockHolder struct {
	Op       string         `yaml:"op"`
	Host     string         `yaml:"host"`
	Checkout string         `yaml:"checkout,omitempty"` // default: any
	Within   fleet.Duration `yaml:"within,omitempty"`   // how long it waits for there to be one. Default 30 s.
	Span     `yaml:",inline"`
}

// killDispatcher kills the operator's command.
type killDispatcher struct {
	Op    string         `yaml:"op"`
	After fleet.Duration `yaml:"after,omitempty"` // its publication. Default at once, or when it publishes.
}

func init() {
	registerAction(ActionInfo{
		Name: "kill_lock_holder", Summary: "crash the process that pulls, as soon as one holds the lock; its git lives on",
		Example: "{op: p1, host: host-007}", New: func() Action { return &killLockHolder{} }, Fault: true,
	})
	registerAction(ActionInfo{
		Name: "kill_dispatcher", Summary: "kill the command that published an op, once it has published it",
		Example: "{op: r1, after: 500ms}", New: func() Action { return &killDispatcher{} }, Fault: true,
	})
}

// watchEvery is how often a waiting action looks again.
const watchEvery = 7 * time.Millisecond

// Validate implements [Action].
func (a *killLockHolder) Validate(p *Plan) []Problem {
	out := append(validOp(p, "op", a.Op), a.Span.validate()...)
	out = append(out, validCheckout(p, a.Checkout)...)
	if a.Host == "" {
		out = append(out, Problem{Field: "host", Message: "is missing"})
	}
	if a.Within == 0 {
		a.Within = fleet.Duration(30 * time.Second)
	}
	return append(out, validHost(p, "host", a.Host)...)
}

// Run implements [Action].
func (a *killLockHolder) Run(w *World, s Step) error {
	what, err := w.pick(s, Where{Host: a.Host})
	if err != nil {
		return err
	}
	for _, h := range what.hosts {
		a.stalk(w, h, time.Now().Add(a.Within.D()))
	}
	return nil
}

// stalk waits for a pull of the op on h, and kills who pulls.
func (a *killLockHolder) stalk(w *World, h *host, until time.Time) {
	for _, c := range h.trees {
		if a.Checkout != "" && c.path != a.Checkout {
			continue
		}
		c.mu.Lock()
		var victim *incarnation
		by := ""
		if c.pull != nil && c.pull.op == a.Op {
			victim, by = c.pull.inc, c.pull.by
		}
		c.mu.Unlock()
		if victim == nil || !victim.alive() {
			continue
		}
		u := victim.proc.unit
		w.disturb("kill_lock_holder", a.For.D(), Event{
			Op: a.Op, Host: h.name, Instance: by,
			Attrs: map[string]string{"path": c.path, "process": victim.proc.name},
		}, func() { u.start("recover") })
		if a.For == 0 {
			// A killed daemon is started again by systemd.
			w.dir.after(2*time.Second, "again "+u.name+"@"+h.name, func() { u.start("auto") })
		}
		u.crash()
		return
	}
	if time.Now().Before(until) {
		w.dir.after(watchEvery, "stalk "+h.name, func() { w.acting(0, func() { a.stalk(w, h, until) }) })
	}
}

// Validate implements [Action].
func (a *killDispatcher) Validate(p *Plan) []Problem { return validOp(p, "op", a.Op) }

// Run implements [Action].
func (a *killDispatcher) Run(w *World, s Step) error {
	published := w.facts.publishedAt(a.Op)
	if published < 0 {
		w.dir.after(watchEvery, "kill_dispatcher "+a.Op, func() { w.do(s) })
		return nil
	}
	if wait := published + a.After.D() - w.trace.Now(); wait > 0 {
		w.dir.after(wait, "kill_dispatcher "+a.Op, func() { w.do(s) })
		return nil
	}
	for _, p := range w.processes() {
		if inc := p.current(); inc != nil && p.opName == a.Op {
			w.disturb("kill_dispatcher", 0, Event{Op: a.Op, Attrs: map[string]string{"process": p.name, "after_ms": strconv.FormatInt(a.After.D().Milliseconds(), 10)}}, nil)
			inc.crash(deathCrash)
			w.trace.Add(Event{Actor: p.name, Kind: EvNoReport, Op: a.Op, Detail: "the dispatcher was killed"}, w.fault())
		}
	}
	return nil
}
