package sim

import (
	"fmt"
)

// partition separates hosts from Redis.
type partition struct {
	From string `yaml:"from"` // a host or glob, or redis
	To   string `yaml:"to"`   // the other; default redis
	// Mode is drop (default: what is sent is lost, and sent again by TCP once
	// the partition heals), hold (it arrives late, without loss) or cut (the
	// connections are reset first).
	Mode   string `yaml:"mode,omitempty"`
	OneWay bool   `yaml:"oneway,omitempty"` // only from → to
	Pick   Pick   `yaml:"pick,omitempty"`
	Span   `yaml:",inline"`
}

func init() {
	registerAction(ActionInfo{
		Name: "partition", Summary: "separate hosts from Redis, in one direction or both",
		Example: "{from: host-001, to: redis, mode: drop, for: 20s}", New: func() Action { return &partition{} }, Fault: true,
	})
	for name, mode := range map[string]string{"partition": "drop", "delay": "hold", "cut": "cut"} {
		registerChaos(name, func(d *draw) Action {
			return &partition{From: d.host(), To: "redis", Mode: mode, Span: d.span()}
		})
	}
	registerChaos("partition_oneway", func(d *draw) Action {
		a := &partition{From: d.host(), To: "redis", Mode: "drop", OneWay: true, Span: d.span()}
		if d.rnd.Float64() < 0.5 {
			a.From, a.To = a.To, a.From
		}
		return a
	})
}

// redisName stands for Redis in from and to.
const redisName = "redis"

// Validate implements [Action].
func (a *partition) Validate(p *Plan) []Problem {
	out := a.Span.validate()
	if a.To == "" {
		a.To = redisName
	}
	if a.Mode == "" {
		a.Mode = "drop"
	}
	if (a.From == redisName) == (a.To == redisName) {
		out = append(out, Problem{Message: fmt.Sprintf("from %q to %q: exactly one of them must be redis, hosts talk to nothing else", a.From, a.To)})
	}
	for field, host := range map[string]string{"from": a.From, "to": a.To} {
		if host != redisName {
			out = append(out, validHost(p, field, host)...)
		}
	}
	switch a.Mode {
	case "drop", "hold", "cut":
	default:
		out = append(out, Problem{Field: "mode", Message: fmt.Sprintf("%q is no mode", a.Mode), Value: a.Mode, Known: []string{"drop", "hold", "cut"}})
	}
	if err := a.Pick.Validate(); err != nil {
		out = append(out, Problem{Field: "pick", Message: err.Error()})
	}
	return out
}

// Run implements [Action].
func (a *partition) Run(w *World, s Step) error {
	host, up, down := a.From, true, !a.OneWay
	if a.From == redisName {
		host, up, down = a.To, !a.OneWay, true
	}
	what, err := w.pick(s, Where{Host: host, Pick: a.Pick})
	if err != nil {
		return err
	}
	var heals []func()
	oneway := ""
	if a.OneWay {
		oneway = "true"
	}
	w.disturb("partition", a.For.D(), Event{Attrs: what.attrs("mode", a.Mode, "from", a.From, "to", a.To, "oneway", oneway)}, func() {
		for _, heal := range heals {
			heal()
		}
	})
	for _, h := range what.hosts {
		if a.Mode == "cut" {
			h.cutLinks("cut")
		}
		heals = append(heals, h.partition(up, down, a.Mode == "drop"))
	}
	return nil
}
