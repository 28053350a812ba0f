package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/hashicorp/go-multierror"

	"github.com/sgfleet/sgfleet/fleet"
)

// Reference types of expectations: their values are checked against the
// scenario when it is read, so that no judge ever meets a name that does not
// exist.
type (
	OpRef      string // an op that the timeline publishes under this name
	HostRef    string // a host of the fleet
	ServiceRef string // NAME@HOST or NAME@HOST#N: one instance
	TierRef    string // a tier that some service belongs to
)

// checker checks what a file says once all of it has been read.
type checker struct {
	*decoder
	sc   *Scenario
	root ast.Node
	ops  []string // names that the timeline gives to ops
}

func (c *checker) check() {
	sc := c.sc
	if !scenarioName.MatchString(sc.Name) {
		c.errorf(c.node("name"), "", "name: want lower-case letters, digits and dashes, not %q", sc.Name)
	}
	if sc.Until.D() <= 0 {
		c.errorf(c.node("until"), "", "until: want more than 0")
	}
	if sc.Settle >= sc.Until {
		c.errorf(c.node("settle", "until"), "", "settle %v leaves nothing of until %v", sc.Settle.D(), sc.Until.D())
	}
	if _, list := c.nodes["seeds"].(*ast.SequenceNode); list && len(sc.Seeds.List) == 0 {
		c.errorf(c.node("seeds"), "", "seeds: want at least one")
	}
	hosts := c.expand()
	sc.plan = &Plan{
		Name: sc.Name, Config: sc.Config, Hosts: hosts, Until: sc.Until.D(), Settle: sc.Settle.D(), Models: sc.Models,
	}
	for _, e := range sc.Timeline {
		if e.Step.Action != nil {
			sc.plan.Timeline = append(sc.plan.Timeline, e.Step)
			if n, ok := e.Step.Action.(OpNamer); ok && n.OpName() != "" {
				c.ops = append(c.ops, n.OpName())
			}
		}
	}
	c.config()
	c.chaos()
	c.timeline()
	c.references()
	c.expectations()
	c.allow()
	c.warnings()
}

// config checks the production config of every host as production does.
func (c *checker) config() {
	said := map[string]bool{}
	wrong := slices.ContainsFunc(c.problems, func(d Diagnostic) bool { return !d.Warning })
	for i := range c.sc.plan.Hosts {
		h := &c.sc.plan.Hosts[i]
		var many *multierror.Error
		if !errors.As(c.sc.plan.HostConfig(h).Validate(), &many) {
			continue
		}
		for _, err := range many.Errors {
			var f *fleet.FieldError
			if !errors.As(err, &f) || said[f.Key+f.Message] {
				continue
			}
			if wrong && (strings.HasPrefix(f.Key, "services.") || strings.HasPrefix(f.Key, "checkouts")) {
				continue // it follows from what has been said of the fleet
			}
			said[f.Key+f.Message] = true
			c.errorf(c.configNode(f.Key), f.Hint, "config: %s: %s", f.Key, f.Message)
		}
	}
}

// configNode finds the place in the file that a key of the config came from, or
// that of the nearest key around it.
func (c *checker) configNode(key string) ast.Node {
	for path := "config." + key; ; {
		if n, ok := c.nodes[path]; ok {
			return n
		}
		dot := strings.LastIndexByte(path, '.')
		if dot < 0 {
			return c.node("config", "fleet")
		}
		path = path[:dot]
	}
}

func (c *checker) chaos() {
	ch := c.sc.Chaos
	if ch == nil {
		return
	}
	if len(ch.Window) != 2 || ch.Window[0] >= ch.Window[1] {
		c.errorf(c.node("chaos.window", "chaos"), "[20s, 3m]", "chaos.window: want two times, the earlier first")
		return
	}
	if last := c.sc.Until - c.sc.Settle; ch.Window[1] > last {
		c.errorf(c.node("chaos.window"), "", "chaos.window ends at %v, but faults heal at %v (until − settle)", ch.Window[1].D(), last.D())
	}
	known := ChaosFaults()
	total := 0.0
	for _, name := range slices.Sorted(maps.Keys(ch.Weights)) {
		if !slices.Contains(known, name) {
			c.errorf(c.node("chaos.weights."+name), nearestOrList(name, known, "chaos"), "chaos.weights: no fault is called %q", name)
		}
		if ch.Weights[name] < 0 {
			c.errorf(c.node("chaos.weights."+name), "", "chaos.weights.%s: want 0 or more", name)
		}
		total += ch.Weights[name]
	}
	if total <= 0 {
		c.errorf(c.node("chaos.weights", "chaos"), "", "chaos.weights: every weight is 0, nothing would happen")
	}
	if ch.MaxConcurrent < 0 {
		c.errorf(c.node("chaos.max_concurrent"), "", "chaos.max_concurrent: want 1 or more")
	}
	c.sc.plan.Chaos = &Chaos{
		Window:   [2]time.Duration{ch.Window[0].D(), ch.Window[1].D()},
		Interval: cmp.Or(ch.Interval.Mean.D(), 15*time.Second), Dist: cmp.Or(ch.Interval.Dist, "exp"),
		Weights: ch.Weights, MaxConcurrent: cmp.Or(ch.MaxConcurrent, 1), For: ch.For.D(),
	}
}

// timeline checks times, and has each action check its arguments.
func (c *checker) timeline() {
	now := time.Duration(0)
	var crashed bool
	for _, e := range c.sc.Timeline {
		s := e.Step
		if s.Action == nil {
			continue
		}
		switch {
		case s.After > 0:
			now += s.After
		default:
			now = s.At
		}
		for _, when := range []string{"at", "after", "every"} {
			if n, ok := c.nodes[e.path+"."+when]; ok && (now > c.sc.Until.D() || s.Every > c.sc.Until.D()) {
				c.errorf(n, "", "%s happens at %v, after the end of the run (until: %v)", e.path, max(now, s.Every), c.sc.Until.D())
			}
		}
		if last := (c.sc.Until - c.sc.Settle).D(); isFault(s.Name) && now > last && now <= c.sc.Until.D() {
			c.errorf(c.node(e.path+".at", e.path), "", "%s: a fault at %v would never heal: faults end at %v (until − settle)", e.path, now, last)
		}
		crashed = crashed || s.Name == "crash" || s.Name == "kill_lock_holder" || s.Name == "leave" || s.Name == "stop_unit" || s.Name == "freeze"
		if s.Name == "recover" && !crashed && c.sc.Chaos == nil {
			c.errorf(c.node(e.path+"#action"), "", "%s: recover, but nothing has crashed before it", e.path)
		}
		for _, p := range s.Action.Validate(c.sc.plan) {
			node := c.node(e.path+"."+s.Name+"."+p.Field, e.path+"#action")
			if p.Field == "" {
				node = c.node(e.path + "#action")
			}
			report := c.errorf
			if p.Warning {
				report = c.warnf
			}
			report(node, didYouMean(p.Value, p.Known), "%s: %s", e.path, p.Message)
		}
	}
	seen := map[string]bool{}
	for _, e := range c.sc.Timeline {
		n, ok := e.Step.Action.(OpNamer)
		if !ok || n.OpName() == "" {
			continue
		}
		if seen[n.OpName()] {
			c.errorf(c.node(e.path+"."+e.Step.Name+".id", e.path), "", "%s: op %q is published twice; to send the same op again say duplicate: {op: %s}", e.path, n.OpName(), n.OpName())
		}
		seen[n.OpName()] = true
	}
}

func didYouMean(value string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	return fleet.DidYouMean(value, known)
}

func isFault(action string) bool {
	info, _ := LookupAction(action)
	return info.Fault
}

// references checks every value of a reference type.
func (c *checker) references() {
	p := c.sc.plan
	for _, r := range c.refs {
		if r.value.String() == "" {
			continue
		}
		var known []string
		kind := ""
		switch r.value.Interface().(type) {
		case OpRef:
			kind, known = "op", c.ops
		case HostRef:
			kind, known = "host", p.HostNames()
		case ServiceRef:
			kind, known = "instance", p.InstanceNames()
		case TierRef:
			kind = "tier"
			for _, m := range p.Members() {
				known = append(known, m.Tier)
			}
		}
		name := r.value.String()
		if slices.Contains(known, name) {
			continue
		}
		hint := didYouMean(name, known)
		if kind == "op" && hint == "" && len(known) == 0 {
			hint = "the timeline publishes none"
		}
		c.errorf(r.node, hint, "%s: no %s is called %q", r.path, kind, name)
	}
}

// expectations finds those that could match nothing.
func (c *checker) expectations() {
	x := c.sc.Expect
	for kind, list := range map[string][]Expectation{"always": x.Always, "finally": x.Finally} {
		for i, e := range list {
			path := fmt.Sprintf("expect.%s[%d]", kind, i)
			if v, ok := e.Args.(validator); ok {
				for _, msg := range v.validate(c.sc) {
					c.errorf(c.node(path), "", "%s.%s: %s", path, e.Name, msg)
				}
			}
		}
	}
	for i, s := range x.Sometimes {
		if message, hint := checkSometimes(s); message != "" {
			c.errorf(c.node(fmt.Sprintf("expect.sometimes[%d]", i)), hint, "expect.sometimes: %s", message)
		}
	}
	for _, metric := range slices.Sorted(maps.Keys(x.Thresholds)) {
		path := "expect.thresholds." + metric
		if _, ok := metrics[metric]; !ok {
			c.errorf(c.node(path), didYouMean(metric, metricNames()), "expect.thresholds: no metric is called %q", metric)
			continue
		}
		if len(x.Thresholds[metric]) == 0 {
			c.errorf(c.node(path), `["p(99)<2s"]`, "%s: no bound is given", path)
		}
		for i, bound := range x.Thresholds[metric] {
			if _, err := parseThreshold(metric, bound); err != nil {
				c.errorf(c.node(fmt.Sprintf("%s[%d]", path, i), path), `such as "p(99)<2s"`, "%s: %v", path, err)
			}
		}
	}
}

// validator is implemented by arguments of expectations that can be wrong
// beyond their types; the messages say what could never match.
type validator interface {
	validate(sc *Scenario) []string
}

func (c *checker) allow() {
	for _, name := range slices.Sorted(maps.Keys(c.sc.Allow)) {
		node := c.node("allow."+name, "allow")
		if _, ok := invariants[name]; !ok {
			c.errorf(node, didYouMean(name, invariantNames()), "allow: no invariant is called %q", name)
			continue
		}
		if len(strings.Fields(c.sc.Allow[name])) < 3 {
			c.errorf(node, "", "allow.%s: opting out of an invariant needs a reason in words", name)
		}
	}
}

// warnings are about scenarios that may well surprise their author.
func (c *checker) warnings() {
	lock, pull := c.sc.Config.LockTTL.D(), c.sc.Models.GitPull.P99.D()
	if lock > 0 && lock < pull && slices.ContainsFunc(c.sc.plan.Members(), func(fleet.Member) bool { return true }) {
		c.warnf(c.node("config.lock_ttl", "models.git_pull"), "", "lock_ttl %v < git_pull p99 %v: a lock can run out while its pull still runs", lock, pull)
	}
}
