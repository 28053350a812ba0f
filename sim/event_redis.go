package sim

import (
	"fmt"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// redisFault is something happening to the Redis server.
type redisFault struct {
	Action string           `yaml:"action"`        // restart, failover, flush, readonly, oom, stall
	Down   fleet.Duration   `yaml:"down"`          // how long restart and failover take. Default 1 s and 3 s.
	Keep   bool             `yaml:"keep_data"`     // of a restart: the data survives
	Lag    fleet.Duration   `yaml:"lag,omitempty"` // of a failover: the newest writes that the replica had not heard of. Default 1 s, at most 5 s.
	Span   `yaml:",inline"` // of readonly, oom and stall
}

var redisActions = []string{"restart", "failover", "flush", "readonly", "oom", "stall"}

func init() {
	registerAction(ActionInfo{
		Name: "redis", Summary: "restart, failover (losing the newest writes), flush, readonly, oom or stall of the Redis server",
		Example: "{action: failover, down: 3s, lag: 500ms}", New: func() Action { return &redisFault{} }, Fault: true,
		VirtualOnly: "the faults of the Redis server are simulated",
	})
	for _, what := range redisActions {
		registerChaos("redis_"+what, func(d *draw) Action {
			a := &redisFault{Action: what, Keep: d.rnd.Float64() < 0.5, Span: d.span()}
			a.defaults()
			if what == "restart" || what == "failover" {
				a.Down = fleet.Duration(time.Duration(float64(a.Down) * (0.3 + 2*d.rnd.Float64())))
			} else {
				a.For = fleet.Duration(min(a.For.D(), 10*time.Second))
			}
			return a
		})
	}
}

func (a *redisFault) defaults() {
	if a.Down == 0 {
		a.Down = fleet.Duration(time.Second)
		if a.Action == "failover" {
			a.Down = fleet.Duration(3 * time.Second)
		}
	}
	if a.Lag == 0 {
		a.Lag = fleet.Duration(time.Second)
	}
}

// Validate implements [Action].
func (a *redisFault) Validate(*Plan) []Problem {
	out := a.Span.validate()
	a.defaults()
	known := false
	for _, x := range redisActions {
		known = known || x == a.Action
	}
	if !known {
		out = append(out, Problem{Field: "action", Message: fmt.Sprintf("%q is nothing that happens to Redis", a.Action), Value: a.Action, Known: redisActions})
	}
	if a.Lag.D() > replicationMemory {
		out = append(out, Problem{Field: "lag", Message: fmt.Sprintf("%v is more than the %v that are remembered", a.Lag, replicationMemory)})
	}
	return out
}

// Run implements [Action].
func (a *redisFault) Run(w *World, _ Step) error {
	r := w.redis
	attrs := map[string]string{"what": a.Action}
	switch a.Action {
	case "restart", "failover":
		f := w.disturb("redis", a.Down.D(), Event{Attrs: attrs}, func() {
			if a.Action == "failover" {
				r.failover(a.Lag.D())
				w.redisEvent("failover")
			} else if !a.Keep {
				r.flush()
			}
			r.start()
			w.redisEvent("up")
		})
		w.acting(f.ref, func() { w.redisEvent("down") })
		r.stop("redis_" + a.Action)
	case "flush":
		w.disturb("redis", 0, Event{Attrs: attrs}, nil)
		r.flush()
		w.redisEvent("flushed")
	case "stall":
		w.disturb("redis", a.For.D(), Event{Attrs: attrs}, func() { r.stall(false); w.redisEvent("resumed") })
		r.stall(true)
		w.redisEvent("stalled")
	default:
		w.disturb("redis", a.For.D(), Event{Attrs: attrs}, func() { r.refusing(a.Action, false); w.redisEvent("writable") })
		r.refusing(a.Action, true)
		w.redisEvent(a.Action)
	}
	return nil
}

func (w *World) redisEvent(what string) {
	w.trace.Add(Event{Actor: "redis", Kind: EvRedis, Attrs: map[string]string{"what": what}}, w.fault())
}
