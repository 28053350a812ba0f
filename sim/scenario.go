package sim

import (
	"time"

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

	Timeline []Step            `yaml:"timeline" json:"timeline"`
	Chaos    *Chaos            `yaml:"chaos" json:"chaos"`
	Expect   Expect            `yaml:"expect" json:"expect"`
	Allow    map[string]string `yaml:"allow" json:"allow"` // invariant → why this scenario opts out of it

	File string `yaml:"-" json:"-"` // where it was read from
	Text []byte `yaml:"-" json:"-"` // as it was read: a worker parses it again
}

// Seeds are the seeds that a scenario runs.
type Seeds struct {
	List        []int64
	StopOnFirst bool // end at the first seed that fails
}

// Topology is the fleet of a scenario: any mix of generated and named hosts, or
// a twin of a live one.
type Topology struct {
	Daemon   string                `yaml:"daemon" json:"daemon"` // host (default): one daemon for all services of a host; embedded: one in each service
	Tiers    []TierRef             `yaml:"tiers" json:"tiers"`   // default: the original system's five
	Generate []Generate            `yaml:"generate" json:"generate"`
	Hosts    map[string]HostConfig `yaml:"hosts" json:"hosts"`
	Twin     string                `yaml:"twin" json:"twin"` // file with the output of sgfleet services -o json

	// All is the result of the above, in a stable order; filled in by Parse.
	All []SimHost `yaml:"-" json:"-"`
}

// Generate makes hosts of one kind.
type Generate struct {
	Hosts    int                      `yaml:"hosts" json:"hosts"`
	Name     string                   `yaml:"name" json:"name"` // with one %d verb; default "host-%03d"
	Services map[string]ServiceConfig `yaml:"services" json:"services"`
	Daemon   string                   `yaml:"daemon" json:"daemon"` // overrides Topology.Daemon
}

// HostConfig is one named host.
type HostConfig struct {
	Services map[string]ServiceConfig `yaml:"services" json:"services"`
	Daemon   string                   `yaml:"daemon" json:"daemon"` // overrides Topology.Daemon; legacy: services of the original system
}

// ServiceConfig is one service of a host.
type ServiceConfig struct {
	Tier     TierRef `yaml:"tier" json:"tier"`         // default: the service's name, when that is a tier
	Replicas int     `yaml:"replicas" json:"replicas"` // default 1
	Checkout string  `yaml:"checkout" json:"checkout"` // absolute path
	State    string  `yaml:"state" json:"state"`       // active (default), inactive or failed at the start
}

// SimHost is a host of the fleet, expanded.
type SimHost struct {
	Name     string
	Daemon   string // host, embedded or legacy
	Services []SimService
}

// SimService is one instance of the fleet, expanded.
type SimService struct {
	Instance fleet.Instance
	Tier     string
	Unit     string // with suffix
	Checkout string
	State    string // active, inactive or failed
	Revision string // from a twin, else ""
}

// The shapes of a daemon in a simulated fleet.
const (
	DaemonHost     = "host"
	DaemonEmbedded = "embedded"
	DaemonLegacy   = "legacy"
)

// Models say how long things take and how often they fail.
type Models struct {
	Link    Model `yaml:"link" json:"link"`         // one direction of a connection. Default p50 500µs, p99 5ms.
	GitPull Model `yaml:"git_pull" json:"git_pull"` // a fetch. Default p50 2s, p99 10s.
	Restart Model `yaml:"restart" json:"restart"`   // stop and start of a unit. Default p50 3s, p99 15s.
}

// Model is a distribution of durations: lognormal through p50 and p99, or
// uniform between two bounds; Fail is the share of attempts that fail.
type Model struct {
	P50     fleet.Duration   `yaml:"p50" json:"p50"`
	P99     fleet.Duration   `yaml:"p99" json:"p99"`
	Uniform []fleet.Duration `yaml:"uniform" json:"uniform"`
	Fail    Percent          `yaml:"fail" json:"fail"`
}

// Percent is a share, written "1%" and kept as 0.01.
type Percent float64

// Step is one entry of a timeline: when, and one action.
type Step struct {
	At    *time.Duration // since the start
	After *time.Duration // since the entry before it began
	Every *time.Duration // again and again, from At (default: from one interval on)

	Action string // its name
	Args   any    // a pointer to its arguments, from ActionSpec.New
	Line   int
}

// Chaos draws faults at random within a window.
type Chaos struct {
	Window   []fleet.Duration `yaml:"window" json:"window"` // [from, to]
	Interval struct {
		Dist string         `yaml:"dist" json:"dist"` // exp (default) or fixed
		Mean fleet.Duration `yaml:"mean" json:"mean"`
	} `yaml:"interval" json:"interval"`
	Weights       map[string]float64 `yaml:"weights" json:"weights"`               // chaos fault → weight
	MaxConcurrent int                `yaml:"max_concurrent" json:"max_concurrent"` // default 1
	For           fleet.Duration     `yaml:"for" json:"for"`                       // mean life of a fault. Default 20 s.
}
