package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// chaosFaults makes a random fault by its name in a scenario's weights.
var chaosFaults = map[string]func(*draw) Action{}

func registerChaos(name string, f func(*draw) Action) {
	if _, dup := chaosFaults[name]; dup {
		panic("sim: chaos fault " + name + " registered twice")
	}
	chaosFaults[name] = f
}

// ChaosFaults names the faults that chaos can draw.
func ChaosFaults() []string { return slices.Sorted(maps.Keys(chaosFaults)) }

// draw is what a random fault is made from.
type draw struct {
	w    *World
	rnd  *rand.Rand
	mean time.Duration // of its life
}

// host is any host that is there.
func (d *draw) host() string {
	var names []string
	for _, h := range d.w.hosts {
		if h.isPresent() {
			names = append(names, h.name)
		}
	}
	return names[d.rnd.IntN(len(names))]
}

// instance is any instance that is there.
func (d *draw) instance() string {
	var names []string
	for _, m := range d.w.members {
		if m.h.isPresent() {
			names = append(names, m.unit.instance)
		}
	}
	return names[d.rnd.IntN(len(names))]
}

// daemon is any host's daemon, or an instance that has one of its own.
func (d *draw) daemon() string {
	h := d.w.host(d.host())
	p := h.procs[d.rnd.IntN(len(h.procs))]
	if p.instance != "" {
		return p.instance
	}
	return fleet.DaemonService + "@" + h.name
}

// span is how long it lasts: exponential, within reason.
func (d *draw) span() Span {
	life := time.Duration(d.rnd.ExpFloat64() * float64(d.mean))
	return Span{For: fleet.Duration(min(max(life, 500*time.Millisecond), 4*d.mean))}
}

// chaos draws faults while a run goes on.
type chaos struct {
	Chaos
	w     *World
	rnd   *rand.Rand
	calm  time.Duration // nothing begins after it
	names []string
	total float64
	n     int
}

func newChaos(w *World, calm time.Duration) *chaos {
	c := &chaos{Chaos: *w.plan.Chaos, w: w, rnd: stream(w.seed, "chaos"), calm: calm}
	c.MaxConcurrent = max(1, c.MaxConcurrent)
	c.For = cmp.Or(c.For, 20*time.Second)
	c.Interval = cmp.Or(c.Interval, 10*time.Second)
	if c.Window[1] == 0 || c.Window[1] > calm {
		c.Window[1] = calm
	}
	for _, name := range slices.Sorted(maps.Keys(c.Weights)) {
		if c.Weights[name] > 0 {
			c.names = append(c.names, name)
			c.total += c.Weights[name]
		}
	}
	return c
}

func (c *chaos) schedule() {
	if len(c.names) > 0 {
		c.next(c.Window[0])
	}
}

// next schedules the fault after from.
func (c *chaos) next(from time.Duration) {
	wait := c.Interval
	if c.Dist != "fixed" {
		wait = time.Duration(c.rnd.ExpFloat64() * float64(c.Interval))
	}
	at := from + wait
	if at >= c.Window[1] {
		return
	}
	c.w.dir.at(c.w.hash.began.Add(at), "0 chaos", func() {
		c.strike()
		c.next(at)
	})
}

// strike begins one fault, unless enough are in force.
func (c *chaos) strike() {
	c.n++
	pick := c.rnd.Float64() * c.total
	d := &draw{w: c.w, rnd: stream(c.w.seed, "chaos", strconv.Itoa(c.n)), mean: c.For}
	if c.w.active() >= c.MaxConcurrent {
		return
	}
	name := c.names[len(c.names)-1]
	for _, n := range c.names {
		if pick -= c.Weights[n]; pick < 0 {
			name = n
			break
		}
	}
	c.w.do(Step{Name: name, Where: fmt.Sprintf("chaos %d", c.n), Action: chaosFaults[name](d)})
}
