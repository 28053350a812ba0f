package sim

import (
	"fmt"
	"slices"

	"github.com/sgfleet/sgfleet/fleet"
)

// ActionSpec describes one timeline action. Each lives in a file of its own
// (event_NAME.go) that registers it; nothing else lists them.
type ActionSpec struct {
	Name string // as in a timeline entry: "crash"
	Help string // one line
	// New returns a pointer to the action's zero arguments: a struct with yaml
	// tags and a json "description" where a field needs one. The checker
	// understands the reference types below wherever they stand in it.
	New func() any
	// Fault says that the action disturbs the fleet (and so is healed before
	// liveness is judged).
	Fault bool
	// RealTime says why the action cannot run against a real redis-server in
	// real time; "" when it can.
	RealTime string
}

var actions = map[string]ActionSpec{}

// RegisterAction adds an action; a name taken twice is a programming error.
func RegisterAction(s ActionSpec) {
	if _, dup := actions[s.Name]; dup {
		panic("sim: action " + s.Name + " registered twice")
	}
	if s.Name == "" || s.Help == "" || s.New == nil {
		panic(fmt.Sprintf("sim: action %q lacks a name, help or arguments", s.Name))
	}
	actions[s.Name] = s
}

// Actions returns every registered action, by name.
func Actions() []ActionSpec {
	out := make([]ActionSpec, 0, len(actions))
	for _, s := range actions {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b ActionSpec) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Reference types: a field of one of these types in an action's arguments or in
// an expectation is checked against the scenario when it is read, so that an
// action never meets a name that does not exist.
type (
	NewOp       string // introduces an op's name in this scenario (publish: {id: p1})
	OpRef       string // an op's name that some entry introduces
	HostRef     string // a host, or a glob that matches at least one
	ServiceRef  string // NAME@HOST or NAME@HOST#N: one instance
	TierRef     string
	TargetRef   string // as an op's target; must match something
	CheckoutRef string // absolute path of a checkout that some service has
	// AnyTarget is a target that is sent as it is, sense or nonsense (the
	// scenario may be about what becomes of a mistyped one).
	AnyTarget string
)

// Where says whom a fault hits: one of its first three fields, written as in an
// op's target. It is embedded (yaml ",inline") in the arguments of each fault.
type Where struct {
	Host    HostRef        `yaml:"host,omitempty" json:"host,omitempty"`
	Service ServiceRef     `yaml:"service,omitempty" json:"service,omitempty"`
	Target  TargetRef      `yaml:"target,omitempty" json:"target,omitempty"`
	Pick    Pick           `yaml:"pick,omitempty" json:"pick,omitempty"` // of what matches; default all
	For     fleet.Duration `yaml:"for,omitempty" json:"for,omitempty"`   // 0: until the faults heal before settle
}

// Pick chooses among what matches: "one", "all", a number or a percentage
// (at least one). The zero value is all.
type Pick struct {
	Count   int     // 0: see Percent
	Percent float64 // 0 with Count 0: all
}

// Of returns how many of n are picked.
func (p Pick) Of(n int) int {
	switch {
	case p.Count > 0:
		return min(p.Count, n)
	case p.Percent > 0 && n > 0:
		return min(max(1, int(p.Percent*float64(n)/100+0.5)), n)
	}
	return n
}
