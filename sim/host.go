package sim

import (
	"context"
	"sync"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// routeWait is how long a dial waits for a route that a partition has cut.
const routeWait = 2500 * time.Millisecond

// host is one machine: its units, checkouts, processes, and its wire.
type host struct {
	w     *World
	name  string
	plan  *HostPlan
	cfg   *fleet.Config
	units []*unit // services in tier order, then the host daemon's own
	trees []*checkout
	procs []*process

	mu      sync.Mutex
	present bool // false before a join and after a leave
	upHold  int  // partitions of the way to Redis
	dnHold  int  // and of the way back
	route   chan struct{}
	skewed  time.Duration
}

func (h *host) skew() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.skewed
}

func (h *host) unit(name string) *unit {
	for _, u := range h.units {
		if u.name == name {
			return u
		}
	}
	return nil
}

func (h *host) checkout(path string) *checkout {
	for _, c := range h.trees {
		if c.path == path {
			return c
		}
	}
	return nil
}

// died frees what a dead process held.
func (h *host) died(inc *incarnation, d death) {
	for _, c := range h.trees {
		c.died(inc, d)
	}
}

// awaitRoute blocks a dial while the host is partitioned.
func (h *host) awaitRoute(ctx context.Context, inc *incarnation) error {
	h.mu.Lock()
	blocked, route := h.upHold+h.dnHold > 0, h.route
	h.mu.Unlock()
	if !blocked {
		return nil
	}
	// Not to the nanosecond: a caller's own limit of the same length must not
	// end at the same instant.
	t := time.NewTimer(routeWait + h.w.splay("route", inc.proc.name))
	defer t.Stop()
	select {
	case <-route:
		return nil
	case <-t.C:
		return errNoRoute
	case <-inc.dead:
		return errFenced
	case <-ctx.Done():
		return ctx.Err()
	}
}

// applyHolds gives a new link the partitions that are in force.
func (h *host) applyHolds(l wire) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range h.upHold {
		l.hold(true, false)
	}
	for range h.dnHold {
		l.hold(false, true)
	}
}

// partition stops the wire of a host, in one direction or both, until the
// returned function is called. With lost, what was sent meanwhile has to be
// sent again.
func (h *host) partition(up, down, lost bool) (heal func()) {
	began := time.Now()
	h.mu.Lock()
	if h.upHold+h.dnHold == 0 {
		h.route = make(chan struct{})
	}
	if up {
		h.upHold++
	}
	if down {
		h.dnHold++
	}
	h.mu.Unlock()
	h.eachLink(func(l wire) { l.hold(up, down) })
	return func() {
		h.mu.Lock()
		if up {
			h.upHold--
		}
		if down {
			h.dnHold--
		}
		if h.upHold+h.dnHold == 0 {
			close(h.route)
		}
		h.mu.Unlock()
		again := time.Duration(0)
		if lost {
			again = time.Since(began)
		}
		h.eachLink(func(l wire) { l.release(up, down, again) })
	}
}

func (h *host) eachLink(f func(wire)) {
	for _, p := range h.procs {
		for _, l := range p.openLinks() {
			f(l)
		}
	}
}

// cutLinks resets every connection of the host.
func (h *host) cutLinks(why string) {
	h.eachLink(func(l wire) {
		h.w.facts.lost(l.info(), why)
		l.cut()
	})
}

// crash is the power going out.
func (h *host) crash() {
	for _, p := range h.procs {
		if inc := p.current(); inc != nil {
			inc.crash(deathPower)
		}
	}
	for _, u := range h.units {
		u.lose()
	}
	for _, c := range h.trees {
		c.powerFails()
	}
}

// crash fences a life with its event.
func (inc *incarnation) crash(d death) {
	p := inc.proc
	if !inc.alive() {
		return
	}
	how := "crash"
	if d == deathPower {
		how = "power"
	}
	p.w.trace.Add(p.event(EvCrash, "how", how), p.w.fault())
	inc.fence(d)
}
