package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/sgfleet/sgfleet/fleet"
)

// expand turns the topology's generators, hosts and twin into host plans.
func (c *checker) expand() []HostPlan {
	t := &c.sc.Fleet
	if len(t.Tiers) > 0 {
		c.sc.Config.Tiers = nil
		for _, name := range t.Tiers {
			c.sc.Config.Tiers = append(c.sc.Config.Tiers, fleet.Tier{Name: name})
		}
	}
	hosts := map[string]HostPlan{}
	add := func(h HostPlan, path string) {
		if !fleet.ValidName(h.Name) {
			c.errorf(c.nodes[path], "", "%s: %q is no host name ([A-Za-z0-9._-], at most %d bytes)", path, h.Name, fleet.MaxName)
			return
		}
		if _, dup := hosts[h.Name]; dup {
			c.errorf(c.nodes[path], "", "%s: host %s exists already", path, h.Name)
			return
		}
		hosts[h.Name] = h
	}
	for i, g := range t.Generate {
		path := fmt.Sprintf("fleet.generate[%d]", i)
		name := cmp.Or(g.Name, "host-%03d")
		if g.Hosts < 1 || g.Hosts > 100_000 {
			c.errorf(c.node(path+".hosts", path), "", "%s.hosts: %d is not between 1 and 100000", path, g.Hosts)
			continue
		}
		if strings.Count(name, "%") != 1 || strings.Contains(fmt.Sprintf(name, 1), "%!") {
			c.errorf(c.node(path+".name", path), `"host-%03d"`, "%s.name: want exactly one %%d verb in %q", path, name)
			continue
		}
		c.services(g.Services, path)
		for n := range g.Hosts {
			add(c.host(fmt.Sprintf(name, n+1), g.HostConfig), path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Hosts)) {
		path := "fleet.hosts." + name
		c.services(t.Hosts[name].Services, path)
		add(c.host(name, t.Hosts[name]), path)
	}
	if t.Twin != "" {
		c.twin(add)
	}
	if len(hosts) == 0 && len(c.problems) == 0 {
		c.errorf(c.node("fleet"), "", "the fleet has no hosts: say fleet.generate, fleet.hosts or fleet.twin")
	}
	return slices.SortedFunc(maps.Values(hosts), func(a, b HostPlan) int { return strings.Compare(a.Name, b.Name) })
}

// services checks the services of one host or generator.
func (c *checker) services(services map[string]ServiceConfig, path string) {
	tiers := c.sc.Config.TierNames()
	if len(services) == 0 {
		c.errorf(c.nodes[path], "", "%s has no services", path)
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		at := path + ".services." + name
		if !fleet.ValidName(name) || name == fleet.DaemonService || name == fleet.TargetAll {
			c.errorf(c.nodes[at], "", "%s: %q may not name a service", path, name)
		}
		switch {
		case s.Tier == "" && !slices.Contains(tiers, name):
			c.errorf(c.nodes[at], "say tier: "+strings.Join(tiers, " | "), "service %s says no tier and is not named like one", name)
		case s.Tier != "" && !slices.Contains(tiers, s.Tier):
			c.errorf(c.node(at+".tier"), fleet.DidYouMean(s.Tier, tiers), "%s: no tier is called %q", at, s.Tier)
		}
		if s.Replicas < 0 || s.Replicas > 1000 {
			c.errorf(c.nodes[at+".replicas"], "", "%s.replicas: %d is not between 1 and 1000", at, s.Replicas)
		}
		if s.Checkout != "" && !filepath.IsAbs(s.Checkout) {
			c.errorf(c.nodes[at+".checkout"], "", "%s.checkout: %q is not an absolute path", at, s.Checkout)
		}
	}
}

func (c *checker) host(name string, hc HostConfig) HostPlan {
	h := HostPlan{
		Name: name, Shape: cmp.Or(hc.Daemon, c.sc.Fleet.Daemon, DaemonHost), Mode: hc.Mode, ClockSkew: hc.ClockSkew.D(), Absent: hc.Absent,
		Services: map[string]fleet.Service{}, Checkouts: map[string]fleet.Checkout{}, State: map[string]string{},
	}
	for svc, s := range hc.Services {
		h.Services[svc] = fleet.Service{Tier: cmp.Or(s.Tier, svc), Checkout: s.Checkout, Instances: s.Replicas, Unit: s.Unit}
		if s.Checkout != "" {
			h.Checkouts[s.Checkout] = c.sc.Config.Checkouts[s.Checkout]
		}
		if s.State != "" {
			h.State[svc] = s.State
		}
	}
	return h
}

// twin reads the recording of a live fleet.
func (c *checker) twin(add func(HostPlan, string)) {
	node := c.nodes["fleet.twin"]
	file := c.sc.Fleet.Twin
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(c.sc.File), file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		c.errorf(node, "", "fleet.twin: %v", err)
		return
	}
	twin, err := ReadTwin(data)
	if err != nil {
		c.errorf(node, "", "fleet.twin: %s: %v", c.sc.Fleet.Twin, err)
		return
	}
	for _, name := range twin.Silent {
		c.warnf(node, "", "fleet.twin: %s was not listening when the fleet was recorded; its twin is", name)
	}
	for _, tier := range twin.Tiers {
		if !slices.Contains(c.sc.Config.TierNames(), tier) {
			c.sc.Config.Tiers = append(c.sc.Config.Tiers, fleet.Tier{Name: tier})
		}
	}
	for _, h := range twin.Hosts {
		if len(h.Services) > 0 {
			add(h, "fleet.twin")
		}
	}
}

// FleetTwin is a recording of a live fleet.
type FleetTwin struct {
	Hosts  []HostPlan
	Tiers  []string // in the order in which they were met
	Silent []string // instances that were DOWN or DEAF when it was recorded
}

// ReadTwin reads what sgfleet services -o json printed: an object with a list
// of instances, each with the fields of its heartbeat.
func ReadTwin(data []byte) (*FleetTwin, error) {
	var doc struct {
		Instances []struct {
			fleet.Heartbeat
			State string `json:"state"`
		} `json:"instances"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("want the output of sgfleet services -o json: %w", err)
	}
	if len(doc.Instances) == 0 {
		return nil, fmt.Errorf("want the output of sgfleet services -o json: it has no instances")
	}
	twin := &FleetTwin{}
	hosts := map[string]*HostPlan{}
	for n, hb := range doc.Instances {
		inst, err := fleet.ParseInstance(hb.Instance)
		if err != nil {
			return nil, fmt.Errorf("instance %d: %w", n+1, err)
		}
		if inst.Service == fleet.DaemonService {
			continue // a daemon's own entry: the twin's hosts have one each
		}
		h := hosts[inst.Host]
		if h == nil {
			h = &HostPlan{
				Name: inst.Host, Shape: DaemonHost, Services: map[string]fleet.Service{}, Checkouts: map[string]fleet.Checkout{},
				State: map[string]string{}, Revision: map[string]string{},
			}
			hosts[inst.Host] = h
		}
		h.addTwin(hb.Heartbeat, inst)
		if tier := cmp.Or(hb.Tier, inst.Service); !slices.Contains(twin.Tiers, tier) {
			twin.Tiers = append(twin.Tiers, tier)
		}
		if hb.DeafSince != 0 || strings.EqualFold(hb.State, "down") || strings.EqualFold(hb.State, "deaf") {
			twin.Silent = append(twin.Silent, hb.Instance)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		twin.Hosts = append(twin.Hosts, *hosts[name])
	}
	return twin, nil
}

func (h *HostPlan) addTwin(hb fleet.Heartbeat, inst fleet.Instance) {
	s := h.Services[inst.Service]
	s.Tier, s.Checkout = cmp.Or(hb.Tier, inst.Service), hb.Checkout
	s.Instances = max(s.Instances, inst.N)
	if unit := strings.TrimSuffix(hb.Unit, ".service"); unit != "" {
		if inst.N > 0 { // stargazer-web@2: the config names the template
			unit, _, _ = strings.Cut(unit, "@")
			unit += "@.service"
		}
		s.Unit = unit
	}
	h.Services[inst.Service] = s
	if hb.Checkout != "" {
		h.Checkouts[hb.Checkout] = fleet.Checkout{}
	}
	switch hb.ActiveState {
	case "inactive", "failed":
		h.State[hb.Instance] = hb.ActiveState
	}
	switch hb.ControlledBy {
	case fleet.BySelf:
		h.Shape = DaemonEmbedded
	case fleet.ByLegacy:
		h.Shape = DaemonLegacy
	}
	if hb.Mode == fleet.ModeObserve {
		h.Mode = hb.Mode
	}
}

// node returns the first of paths that was given in the file.
func (c *checker) node(paths ...string) ast.Node {
	for _, p := range paths {
		if n, ok := c.nodes[p]; ok {
			return n
		}
	}
	return c.root
}
