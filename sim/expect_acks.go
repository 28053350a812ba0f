package sim

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

type acksArgs struct {
	Op     OpRef  `yaml:"op" json:"op" jsonschema:"required"`
	Equals string `yaml:"equals" json:"equals,omitempty"` // live_at_publish, or a number of instances
	Min    *int   `yaml:"min" json:"min,omitempty"`
	Max    *int   `yaml:"max" json:"max,omitempty"`
	// Phase counts only acks of this phase; default any.
	Phase string `yaml:"phase" json:"phase,omitempty" jsonschema:"enum=accepted,enum=done,enum=refused"`
	// Status counts only acks with this status.
	Status string `yaml:"status" json:"status,omitempty"`
	// Service looks at this instance only.
	Service ServiceRef `yaml:"service" json:"service,omitempty"`
	// Within counts only acks that Redis had so long after the op was published.
	Within fleet.Duration `yaml:"within" json:"within,omitempty"`
}

const liveAtPublish = "live_at_publish"

func (a *acksArgs) validate(*Scenario) []string {
	if a.Equals == "" && a.Min == nil && a.Max == nil {
		return []string{"says no bound: equals, min or max"}
	}
	if n, err := strconv.Atoi(a.Equals); a.Equals != "" && a.Equals != liveAtPublish && (err != nil || n < 0) {
		return []string{fmt.Sprintf("equals: want %s or a number, not %q", liveAtPublish, a.Equals)}
	}
	return nil
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "acks", Help: "how many instances answered an op (each counts once)",
		Example: "acks: {op: r1, equals: live_at_publish}", Always: true, Finally: true,
		New:   func() any { return new(acksArgs) },
		Judge: judgeAcks,
	})
}

func judgeAcks(r *Record, args any) Finding {
	a := args.(*acksArgs)
	o := r.op(string(a.Op))
	var f Finding
	var who []string
	var events []int
	for _, name := range r.names {
		if a.Service != "" && name != string(a.Service) {
			continue
		}
		for _, i := range o.acks[name] {
			e := r.Events[i]
			if a.Within > 0 && o.published() >= 0 && e.T > r.at(o.published())+a.Within.D() {
				break
			}
			if (a.Phase == "" || a.Phase == e.Attr("phase")) && (a.Status == "" || a.Status == e.Attr("status")) {
				who, events = append(who, name), append(events, i)
				break
			}
		}
	}
	f.Armed = max(len(who), len(o.live))
	what := fmt.Sprintf("%d instances answered %s", len(who), a.Op)
	if a.Within > 0 {
		what += fmt.Sprintf(" within %v", a.Within.D())
	}
	if a.Phase+a.Status != "" {
		what += " with " + a.Phase + a.Status
	}
	if a.Equals == liveAtPublish {
		var missing []string
		for _, name := range o.live {
			if !slices.Contains(who, name) && !r.diedEarly(o, name) {
				missing = append(missing, name)
			}
		}
		for _, name := range r.names {
			if i := r.announced(name, o.published()); i >= 0 && !slices.Contains(who, name) && !slices.Contains(missing, name) {
				f.violate(r.seqs(i, o.published()), "%s was in the registry, alive and not deaf, and yet had never subscribed when %s was published", name, a.Op)
			}
		}
		if len(missing) > 0 {
			f.violate(r.seqs(o.published()), "%s; these were live when it was published and said nothing: %s", what, list(missing, 8))
		}
		return f
	}
	b := Bound{Min: a.Min, Max: a.Max}
	if n, err := strconv.Atoi(a.Equals); err == nil && a.Equals != "" {
		b = Bound{Exactly: &n}
	}
	if want := b.broken(len(who)); want != "" {
		f.violate(r.seqs(append([]int{o.published()}, events[:min(5, len(events))]...)...), "%s, want %s", what, want)
	}
	return f
}

// diedEarly reports whether the daemon of name ended, or lost its connection,
// before it could have answered o.
func (r *Record) diedEarly(o *opRecord, name string) bool {
	m := r.members[name]
	if m == nil || o.published() < 0 {
		return true
	}
	l := r.lifeAt(m.process, o.published())
	if l == nil || l.end >= 0 && r.at(l.end) < r.at(o.published())+control.MaxOpLife {
		return true
	}
	return !r.heard(o, m.process) || r.muted(m, r.at(o.published()), r.at(o.published())+ackPatience)
}

// announced is the heartbeat by which name's daemon called itself alive, in the
// life it was in at event i and before it had ever subscribed; −1 when it did
// not. Whoever reads the registry then counts on an answer that cannot come.
func (r *Record) announced(name string, i int) int {
	m := r.members[name]
	if m == nil || i < 0 {
		return -1
	}
	l := r.lifeAt(m.process, i)
	if l == nil || l.subscribed >= 0 && l.subscribed < i {
		return -1
	}
	for k := i - 1; k > l.boot; k-- {
		if e := r.Events[k]; e.Kind == EvHeartbeat && e.Instance == name && e.Attr("subscribed") == "true" {
			return k
		}
	}
	return -1
}
