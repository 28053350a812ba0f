package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// Action is one action of a timeline with its arguments. The struct that
// implements it carries yaml tags, so that a scenario decodes into it
// strictly; each lives in an event_*.go file of its own and registers itself
// there.
type Action interface {
	// Validate reports everything that is wrong with the arguments in plan p.
	Validate(p *Plan) []Problem
	// Run does it. It does not wait: what takes time goes on in the world, and
	// a fault that ends by itself is healed by the world's clock.
	Run(w *World, s Step) error
}

// Problem is one thing wrong with an action's arguments.
type Problem struct {
	Field   string // yaml name of the argument, "" for the action itself
	Message string
	Value   string   // the offending value, when there is a list it should be in
	Known   []string // that list: a "did you mean" can be made of it
	Warning bool     // the scenario can run all the same
}

func (p Problem) Error() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

// ActionInfo describes a registered action.
type ActionInfo struct {
	Name    string
	Summary string        // one line
	Example string        // YAML flow mapping, as it stands in a timeline
	New     func() Action // a pointer to a zero value, ready to be decoded into
	Fault   bool          // it disturbs the fleet, and heals before the settle time

	// VirtualOnly says why the action cannot be run against a real
	// redis-server in real time; "" when it can.
	VirtualOnly string
}

var actions = map[string]ActionInfo{}

func registerAction(a ActionInfo) {
	if _, dup := actions[a.Name]; dup || a.Name == "" || a.Summary == "" || a.New == nil {
		panic("sim: action " + a.Name + " is registered twice or lacks a name, summary or constructor")
	}
	actions[a.Name] = a
}

// Actions lists every action by name.
func Actions() []ActionInfo {
	return slices.SortedFunc(maps.Values(actions), func(a, b ActionInfo) int { return cmp.Compare(a.Name, b.Name) })
}

// LookupAction finds an action by its name.
func LookupAction(name string) (ActionInfo, bool) {
	a, ok := actions[name]
	return a, ok
}

// OpNamer is implemented by actions that give an op a name that later entries
// and expectations refer to.
type OpNamer interface {
	OpName() string
}

// Where selects what a fault hits. Exactly one of Host, Service and Target is
// set; Pick then chooses among what matches. Embed it with yaml ",inline".
type Where struct {
	Host    string `yaml:"host,omitempty"`    // a host, or a glob of hosts
	Service string `yaml:"service,omitempty"` // one instance: NAME@HOST
	Target  string `yaml:"target,omitempty"`  // as an op's target
	Pick    Pick   `yaml:"pick,omitempty"`    // one, all (default), 3, 30%
}

// Span is how long a fault lasts; zero means until the settle time begins.
// Embed it with yaml ",inline".
type Span struct {
	For fleet.Duration `yaml:"for,omitempty"`
}

func (w Where) validate(p *Plan) []Problem {
	var out []Problem
	set := 0
	for _, s := range []string{w.Host, w.Service, w.Target} {
		if s != "" {
			set++
		}
	}
	if set != 1 {
		out = append(out, Problem{Message: "want exactly one of host, service and target"})
	}
	if err := w.Pick.Validate(); err != nil {
		out = append(out, Problem{Field: "pick", Message: err.Error()})
	}
	out = append(out, validHost(p, "host", w.Host)...)
	if names := append(p.InstanceNames(), p.daemonNames()...); w.Service != "" && !slices.Contains(names, w.Service) {
		out = append(out, Problem{
			Field: "service", Message: fmt.Sprintf("instance %q is not in the fleet", w.Service),
			Value: w.Service, Known: names,
		})
	}
	if w.Target != "" {
		if _, err := p.Target(w.Target); err != nil {
			out = append(out, Problem{Field: "target", Message: err.Error()})
		}
	}
	return out
}

// daemonNames returns the names that host daemons are addressed by.
func (p *Plan) daemonNames() []string {
	var out []string
	for _, h := range p.Hosts {
		if h.Shape == "" || h.Shape == DaemonHost {
			out = append(out, fleet.Instance{Service: fleet.DaemonService, Host: h.Name}.String())
		}
	}
	return out
}

func (s Span) validate() []Problem {
	if s.For < 0 {
		return []Problem{{Field: "for", Message: fmt.Sprintf("%v is negative", time.Duration(s.For))}}
	}
	return nil
}

// validHost checks a host or glob of hosts in argument field; "" is fine.
func validHost(p *Plan, field, host string) []Problem {
	if host == "" || len(p.hostsMatching(host)) > 0 {
		return nil
	}
	return []Problem{{
		Field: field, Message: fmt.Sprintf("host %q is not in the fleet", host),
		Value: host, Known: p.HostNames(),
	}}
}

// validOp checks that argument field names an op that an earlier entry of the
// timeline publishes.
func validOp(p *Plan, field, op string) []Problem {
	var names []string
	for _, s := range p.Timeline {
		if n, ok := s.Action.(OpNamer); ok && n.OpName() != "" {
			names = append(names, n.OpName())
		}
	}
	if slices.Contains(names, op) {
		return nil
	}
	return []Problem{{Field: field, Message: fmt.Sprintf("no op %q is published in the timeline", op), Value: op, Known: names}}
}
