package sim

import (
	"github.com/sgfleet/sgfleet/fleet"
)

// Scenario is one scenario file.
type Scenario struct {
	Version     int            `yaml:"sgsim" json:"sgsim"`             // 1, the file's first key
	Name        string         `yaml:"name" json:"name"`               // [a-z0-9-]
	Description string         `yaml:"description" json:"description"` // what an operator would recognise
	Tags        []string       `yaml:"tags" json:"tags"`
	Seeds       Seeds          `yaml:"seeds" json:"seeds"`   // a list, or {from, count, stop_on_first}
	Until       fleet.Duration `yaml:"until" json:"until"`   // virtual horizon, settle included
	Settle      fleet.Duration `yaml:"settle" json:"settle"` // every fault heals this long before Until. Default 30 s.

	// Config is the production config, on top of its defaults. The fleet's
	// services and tiers are filled in from Fleet.
	Config *fleet.Config `yaml:"config" json:"config"`
	Fleet  Topology      `yaml:"fleet" json:"fleet"`
	Models Models        `yaml:"models" json:"models"`

	Timeline []Entry           `yaml:"timeline" json:"timeline"`
	Chaos    *ChaosConfig      `yaml:"chaos" json:"chaos"`
	Expect   Expect            `yaml:"expect" json:"expect"`
	Allow    map[string]string `yaml:"allow" json:"allow"` // invariant → why this scenario opts out of it

	File string `yaml:"-" json:"-"` // where it was read from
	Text []byte `yaml:"-" json:"-"` // as it was read: a worker parses it again

	plan *Plan // what the engine runs
}

// Plan returns what the engine runs: the scenario with its generators expanded.
func (sc *Scenario) Plan() *Plan { return sc.plan }

// VirtualOnly says why the scenario cannot be run in real time against a real
// redis-server; "" when it can.
func (sc *Scenario) VirtualOnly() string {
	for _, e := range sc.Timeline {
		if info, _ := LookupAction(e.Step.Name); info.VirtualOnly != "" {
			return e.Step.Name + ": " + info.VirtualOnly
		}
	}
	if sc.Chaos != nil {
		return "chaos draws faults of the simulated Redis"
	}
	return ""
}

// Seeds are the seeds that a scenario runs.
type Seeds struct {
	List        []int64
	StopOnFirst bool // end at the first seed that fails
}

// Topology is the fleet of a scenario: any mix of generated and named hosts, or
// a twin of a live one.
type Topology struct {
	Daemon   string                `yaml:"daemon" json:"daemon" jsonschema:"enum=host,enum=embedded"` // host (default): one daemon for all services of a host; embedded: one in each service
	Tiers    []string              `yaml:"tiers" json:"tiers"`                                        // default: the original system's five
	Generate []Generate            `yaml:"generate" json:"generate"`
	Hosts    map[string]HostConfig `yaml:"hosts" json:"hosts"`
	Twin     string                `yaml:"twin" json:"twin"` // file with the output of sgfleet services -o json
}

// Generate makes hosts of one kind.
type Generate struct {
	Hosts      int    `yaml:"hosts" json:"hosts" jsonschema:"required"`
	Name       string `yaml:"name" json:"name"` // with one %d verb; default "host-%03d"
	HostConfig `yaml:",inline"`
}

// HostConfig is one named host.
type HostConfig struct {
	Services map[string]ServiceConfig `yaml:"services" json:"services"`
	// Daemon overrides Topology.Daemon; legacy: services of the original system.
	Daemon    string         `yaml:"daemon" json:"daemon" jsonschema:"enum=host,enum=embedded,enum=legacy"`
	Mode      string         `yaml:"mode" json:"mode" jsonschema:"enum=act,enum=observe"` // default: the config's
	ClockSkew fleet.Duration `yaml:"clock_skew" json:"clock_skew"`                        // the host's clock is ahead by this
	Absent    bool           `yaml:"absent" json:"absent"`                                // not there until a join brings it
}

// ServiceConfig is one service of a host.
type ServiceConfig struct {
	Tier     string `yaml:"tier" json:"tier"`         // default: the service's name, when that is a tier
	Replicas int    `yaml:"replicas" json:"replicas"` // default 1
	Checkout string `yaml:"checkout" json:"checkout"` // absolute path
	Unit     string `yaml:"unit" json:"unit"`         // default: control_unit_prefix + name; with replicas a template
	// State at the start; default active.
	State string `yaml:"state" json:"state" jsonschema:"enum=active,enum=inactive,enum=failed"`
}

// Entry is one entry of a timeline: when, and one action.
type Entry struct {
	Step Step
	Line int
	path string
}

// ChaosConfig draws faults at random within a window.
type ChaosConfig struct {
	Window        []fleet.Duration   `yaml:"window" json:"window" jsonschema:"required"` // [from, to]
	Interval      ChaosInterval      `yaml:"interval" json:"interval"`
	Weights       map[string]float64 `yaml:"weights" json:"weights" jsonschema:"required"` // fault → weight
	MaxConcurrent int                `yaml:"max_concurrent" json:"max_concurrent"`         // default 1
	For           fleet.Duration     `yaml:"for" json:"for"`                               // mean life of a fault. Default 20 s.
}

// ChaosInterval is the time between two faults.
type ChaosInterval struct {
	Dist string         `yaml:"dist" json:"dist" jsonschema:"enum=exp,enum=fixed"` // default exp
	Mean fleet.Duration `yaml:"mean" json:"mean"`                                  // default 15 s
}
