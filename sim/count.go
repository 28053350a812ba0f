package sim

import (
	"fmt"
	"slices"
	"strings"
)

// Selector says what a counting expectation counts. With Per the bound holds
// for each member that the op selects and that was live when it was published;
// without, for the sum over what the selector names.
type Selector struct {
	Op      OpRef      `yaml:"op" json:"op,omitempty"`
	Per     string     `yaml:"per" json:"per,omitempty" jsonschema:"enum=service,enum=host,enum=tier,enum=host+checkout,enum=fleet"`
	Service ServiceRef `yaml:"service" json:"service,omitempty"`
	Host    HostRef    `yaml:"host" json:"host,omitempty"`
	Tier    TierRef    `yaml:"tier" json:"tier,omitempty"`
}

// Bound says how many there may be.
type Bound struct {
	Exactly *int `yaml:"exactly" json:"exactly,omitempty"`
	Max     *int `yaml:"max" json:"max,omitempty"`
	Min     *int `yaml:"min" json:"min,omitempty"`
}

func (b Bound) validate() []string {
	switch {
	case b.Exactly == nil && b.Max == nil && b.Min == nil:
		return []string{"says no bound: exactly, max or min"}
	case b.Exactly != nil && (b.Max != nil || b.Min != nil):
		return []string{"exactly stands alone, without max and min"}
	case b.Max != nil && b.Min != nil && *b.Min > *b.Max:
		return []string{fmt.Sprintf("min %d is more than max %d: nothing can satisfy it", *b.Min, *b.Max)}
	}
	for _, n := range []*int{b.Exactly, b.Max, b.Min} {
		if n != nil && *n < 0 {
			return []string{fmt.Sprintf("%d is negative", *n)}
		}
	}
	return nil
}

// broken returns "" when n is within the bound, else what was wanted.
func (b Bound) broken(n int) string {
	switch {
	case b.Exactly != nil && n != *b.Exactly:
		return fmt.Sprintf("exactly %d", *b.Exactly)
	case b.Max != nil && n > *b.Max:
		return fmt.Sprintf("at most %d", *b.Max)
	case b.Min != nil && n < *b.Min:
		return fmt.Sprintf("at least %d", *b.Min)
	}
	return ""
}

// validate says in what s selects nothing in this fleet.
func (s Selector) validate(sc *Scenario, needCheckout bool) []string {
	if n := countSet(string(s.Service), string(s.Host), string(s.Tier)); n > 1 {
		return []string{"want at most one of service, host and tier"}
	} else if n == 1 && s.Per != "" {
		return []string{"per stands without service, host and tier"}
	}
	if (s.Per == "host+checkout" || needCheckout) && !hasCheckout(sc.plan) {
		return []string{"no service of the fleet has a checkout: this can match nothing"}
	}
	return nil
}

func countSet(values ...string) int {
	n := 0
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	return n
}

func hasCheckout(p *Plan) bool {
	for _, h := range p.Hosts {
		for _, s := range h.Services {
			if s.Checkout != "" {
				return true
			}
		}
	}
	return false
}

// counted is one thing that is counted: a pull, a restart, an ack.
type counted struct {
	at                             int // index of its event
	instance, host, tier, path, op string
}

func (s Selector) matches(c counted) bool {
	return (s.Op == "" || string(s.Op) == c.op) && (s.Service == "" || string(s.Service) == c.instance) &&
		(s.Host == "" || string(s.Host) == c.host) && (s.Tier == "" || string(s.Tier) == c.tier)
}

func (s Selector) key(c counted) string {
	switch s.Per {
	case "service":
		return c.instance
	case "host":
		return c.host
	case "tier":
		return c.tier
	case "host+checkout":
		return c.host + ":" + c.path
	}
	return s.String()
}

func (s Selector) String() string {
	switch {
	case s.Service != "":
		return string(s.Service)
	case s.Host != "":
		return "host " + string(s.Host)
	case s.Tier != "":
		return "tier " + string(s.Tier)
	}
	return "the fleet"
}

// count judges the bound on items. onlyMembers lists the keys that count when
// none of them has an item.
func (r *Record) count(s Selector, b Bound, what string, items []counted) Finding {
	var f Finding
	groups := map[string][]int{}
	order := r.keys(s)
	for _, k := range order {
		groups[k] = nil
	}
	for _, c := range items {
		if !s.matches(c) {
			continue
		}
		k := s.key(c)
		if _, known := groups[k]; !known {
			order = append(order, k)
		}
		groups[k] = append(groups[k], c.at)
	}
	f.Armed = len(order)
	if b.Max != nil && b.Min == nil { // "at most" is only put to the test by something to count
		f.Armed = 0
		for _, at := range groups {
			f.Armed += len(at)
		}
	}
	var pub []int
	if o := r.byName[string(s.Op)]; o != nil && s.Op != "" {
		pub = o.publishes
	}
	for _, k := range order {
		if want := b.broken(len(groups[k])); want != "" {
			f.violate(r.seqs(append(slices.Clone(pub), groups[k]...)...), "%s: %d %s%s, want %s", k, len(groups[k]), what, ofOp(s.Op), want)
		}
	}
	return f
}

func ofOp(op OpRef) string {
	if op == "" {
		return ""
	}
	return " of " + string(op)
}

// keys are the groups that a bound holds for even when nothing is counted in
// them.
func (r *Record) keys(s Selector) []string {
	if s.Per == "" || s.Per == "fleet" {
		return []string{s.String()}
	}
	var out []string
	o := r.byName[string(s.Op)]
	for _, name := range r.names {
		m := r.members[name]
		if s.Op != "" && (o == nil || !slices.Contains(o.live, name)) {
			continue
		}
		if s.Per == "host+checkout" && m.checkout == "" {
			continue
		}
		k := s.key(r.counted(m, -1))
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

func (r *Record) counted(m *member, at int) counted {
	return counted{at: at, instance: m.name, host: m.Host, tier: m.Tier, path: m.checkout}
}

// interval is something that lasts.
type interval struct {
	from, to int // indices; to −1: until the end
}

// overlaps returns the largest number of intervals that are open at once, and
// the events that opened them.
func (r *Record) overlaps(list []interval) (most int, open []int) {
	type edge struct{ at, opens int }
	var edges []edge
	for i, iv := range list {
		edges = append(edges, edge{iv.from, i + 1})
		if iv.to >= 0 {
			edges = append(edges, edge{iv.to, -(i + 1)})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at - b.at })
	now := map[int]bool{}
	for _, e := range edges {
		if e.opens < 0 {
			delete(now, -e.opens)
			continue
		}
		now[e.opens] = true
		if len(now) > most {
			most, open = len(now), nil
			for i := range now {
				open = append(open, list[i-1].from)
			}
			slices.Sort(open)
		}
	}
	return most, open
}

func list(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
