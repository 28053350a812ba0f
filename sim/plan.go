package sim

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// Plan is one fleet and what happens to it: a scenario file after parsing,
// with its generators expanded.
type Plan struct {
	Name   string
	Config *fleet.Config // what every host and the operator share; services come from Hosts
	Hosts  []HostPlan    // in a stable order
	Until  time.Duration // horizon of the run, Settle included
	Settle time.Duration // every fault heals this long before Until
	Models Models

	Timeline []Step
	Chaos    *Chaos // nil: none
}

// HostPlan is one host and the services on it.
type HostPlan struct {
	Name      string
	Services  map[string]fleet.Service // as in the production config, Instances for replicas
	Checkouts map[string]fleet.Checkout
	Shape     string            // DaemonHost (the zero value means it), DaemonEmbedded or DaemonLegacy
	Mode      string            // act or observe; "" means the config's
	ClockSkew time.Duration     // of Identity.Wall
	Absent    bool              // not there until a join action brings it
	State     map[string]string // service, or instance → active (default), inactive or failed at the start
	Revision  map[string]string // checkout → HEAD at the start; default the remote's tip
}

// The shapes of a daemon in a simulated fleet.
const (
	DaemonHost     = "host"     // one daemon per host for all its services
	DaemonEmbedded = "embedded" // one in each service, which restarts itself
	DaemonLegacy   = "legacy"   // services of the original system: obey, and answer in text
)

// Step is one entry of the timeline. At most one of At, After and Every is
// set; none means at the start.
type Step struct {
	At     time.Duration // since the start of the run
	After  time.Duration // since the entry before this one
	Every  time.Duration // again and again, first one interval after the start
	Name   string        // the action's name
	Action Action
	Where  string // file:line:col, for messages
}

// Models says how long things take in this world.
type Models struct {
	Link    Dist `yaml:"link"`     // one direction of a connection to Redis. Default p50 500 µs, p99 5 ms.
	GitPull Dist `yaml:"git_pull"` // fetch and merge together. Default p50 2 s, p99 10 s.
	Restart Dist `yaml:"restart"`  // stop and start together. Default p50 3 s, p99 15 s.
	Boot    Dist `yaml:"boot"`     // from a daemon's start until it runs. Default p50 300 ms, p99 1 s.
}

// DefaultModels are the models of a fleet that has no trouble.
func DefaultModels() Models {
	return Models{
		Link:    Dist{P50: fleet.Duration(500 * time.Microsecond), P99: fleet.Duration(5 * time.Millisecond)},
		GitPull: Dist{P50: fleet.Duration(2 * time.Second), P99: fleet.Duration(10 * time.Second)},
		Restart: Dist{P50: fleet.Duration(3 * time.Second), P99: fleet.Duration(15 * time.Second)},
		Boot:    Dist{P50: fleet.Duration(300 * time.Millisecond), P99: fleet.Duration(time.Second)},
	}
}

// Dist is a distribution of durations: log-normal through its 50th and 99th
// percentile, or uniform between two bounds; Fail is the share of attempts
// that fail.
type Dist struct {
	P50     fleet.Duration   `yaml:"p50"`
	P99     fleet.Duration   `yaml:"p99"` // zero or below P50: always P50
	Uniform []fleet.Duration `yaml:"uniform"`
	Fail    Percent          `yaml:"fail"`
}

// Percent is a share, 0 … 1, written "1%" or as a bare number of percent.
type Percent float64

// UnmarshalText parses "1%", "0.5 %" or "1".
func (p *Percent) UnmarshalText(b []byte) error {
	s := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(b)), "%"))
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 100 || math.IsNaN(v) {
		return fmt.Errorf("percentage %q: want 0%% to 100%%", b)
	}
	*p = Percent(v / 100)
	return nil
}

// String renders p as "1%".
func (p Percent) String() string { return strconv.FormatFloat(float64(p)*100, 'g', -1, 64) + "%" }

// Pick says how many of the things that match an action hits: one, all, a
// number, or a percentage (at least one). "" means all.
type Pick string

// Validate reports whether p can be understood.
func (p Pick) Validate() error {
	_, err := p.count(1)
	return err
}

// count returns how many of n are picked.
func (p Pick) count(n int) (int, error) {
	s := strings.TrimSpace(string(p))
	switch s {
	case "", "all":
		return n, nil
	case "one":
		return min(1, n), nil
	}
	if share, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		if err != nil || v <= 0 || v > 100 {
			return 0, fmt.Errorf("pick %q: want one, all, a number or a percentage", string(p))
		}
		return int(math.Ceil(float64(n) * v / 100)), nil
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		return 0, fmt.Errorf("pick %q: want one, all, a number or a percentage", string(p))
	}
	return min(v, n), nil
}

// Chaos injects faults at random (by the run's seed) inside a window.
type Chaos struct {
	Window        [2]time.Duration
	Interval      time.Duration      // mean of the time between two faults
	Dist          string             // exp (default) or fixed
	Weights       map[string]float64 // of the faults named by [ChaosFaults]
	MaxConcurrent int                // 0 means 1
	For           time.Duration      // mean life of a fault; 0 means 20 s
}

// HostConfig returns the production config of host h: the shared one with the
// host's own services and checkouts.
func (p *Plan) HostConfig(h *HostPlan) *fleet.Config {
	c := *p.Config
	c.Host, c.Services, c.Checkouts = h.Name, map[string]fleet.Service{}, h.Checkouts
	if h.Mode != "" {
		c.Mode = h.Mode
	}
	for name, s := range h.Services {
		s.Hosts = nil
		switch h.Shape {
		case DaemonEmbedded:
			s.ControlledBy = fleet.BySelf
		case DaemonLegacy:
			s.ControlledBy = fleet.ByLegacy
		}
		c.Services[name] = s
	}
	return &c
}

// Members returns every instance of the fleet, those of absent hosts too.
func (p *Plan) Members() []fleet.Member {
	var out []fleet.Member
	for i := range p.Hosts {
		h := &p.Hosts[i]
		for _, l := range p.HostConfig(h).LocalServices(h.Name) {
			out = append(out, l.Member())
		}
	}
	return out
}

// InstanceNames returns every instance's name.
func (p *Plan) InstanceNames() []string {
	var out []string
	for _, m := range p.Members() {
		out = append(out, m.Instance.String())
	}
	return out
}

// HostNames returns every host's name.
func (p *Plan) HostNames() []string {
	out := make([]string, len(p.Hosts))
	for i, h := range p.Hosts {
		out[i] = h.Name
	}
	return out
}

// OperatorConfig is the config of who dispatches ops: the shared one with the
// services of all hosts.
func (p *Plan) OperatorConfig() *fleet.Config {
	c := *p.Config
	c.Host, c.Services, c.Checkouts = "operator", map[string]fleet.Service{}, nil
	c.Legacy.Instances = slices.Clone(c.Legacy.Instances)
	for i := range p.Hosts {
		if p.Hosts[i].Shape == DaemonLegacy {
			for _, l := range p.HostConfig(&p.Hosts[i]).LocalServices(p.Hosts[i].Name) {
				c.Legacy.Instances = append(c.Legacy.Instances, l.Instance.String())
			}
			c.Legacy.AckPattern = cmp.Or(c.Legacy.AckPattern, legacyAckPattern)
		}
		for name, s := range p.Hosts[i].Services {
			if _, known := c.Services[name]; !known {
				c.Services[name] = s
			}
		}
	}
	return &c
}

// Target resolves a target against the plan's fleet.
func (p *Plan) Target(target string) ([]fleet.Member, error) {
	members := p.Members()
	t, err := fleet.ParseTarget(target, p.OperatorConfig(), members...)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(members, func(m fleet.Member) bool { return !t.Match(m) })
	if len(out) == 0 {
		return nil, fmt.Errorf("target %q matches nothing in the fleet", target)
	}
	return out, nil
}

func (p *Plan) hostsMatching(glob string) []string {
	var out []string
	for _, h := range p.Hosts {
		if ok, err := path.Match(glob, h.Name); (ok && err == nil) || h.Name == glob {
			out = append(out, h.Name)
		}
	}
	return out
}
