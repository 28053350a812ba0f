package fleet

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Who restarts and pulls a service.
const (
	ByHost   = "host"   // the host's sgfleet daemon
	BySelf   = "self"   // a daemon embedded in the service itself
	ByLegacy = "legacy" // the original system's own control code
)

// LocalService is one instance that a host runs, as its config says.
type LocalService struct {
	Instance     Instance
	Tier         string
	Unit         string // with suffix, and the index in a template's name
	Checkout     string // absolute path, "" when there is nothing to pull
	ControlledBy string // ByHost, BySelf or ByLegacy
}

// Member returns what a target is matched against.
func (l LocalService) Member() Member { return Member{Instance: l.Instance, Tier: l.Tier} }

// LocalServices returns the instances that host runs, in tier order, then by
// service and index.
func (c *Config) LocalServices(host string) []LocalService {
	var out []LocalService
	for _, name := range c.ServiceNames() {
		s := c.Services[name]
		if len(s.Hosts) > 0 && !slices.ContainsFunc(s.Hosts, func(g string) bool { return glob(g, host) }) {
			continue
		}
		l := LocalService{
			Instance: Instance{Service: name, Host: host}, Tier: c.TierOf(name),
			Checkout: s.Checkout, ControlledBy: cmp.Or(s.ControlledBy, ByHost),
		}
		for _, u := range c.serviceUnits(name) {
			if s.Instances > 1 {
				l.Instance.N++
			}
			l.Unit = ServiceUnit(u)
			out = append(out, l)
		}
	}
	return out
}

// ServiceNames returns the configured services in tier order, then by name.
func (c *Config) ServiceNames() []string {
	tiers := c.TierNames()
	names := make([]string, 0, len(c.Services))
	for name := range c.Services {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(tierRank(tiers, c.TierOf(a)), tierRank(tiers, c.TierOf(b))), cmp.Compare(a, b))
	})
	return names
}

// serviceUnits returns the units of one service on one host, index by index.
func (c *Config) serviceUnits(service string) []string {
	unit := UnitName(c, service)
	count := c.Services[service].Instances
	if count <= 1 {
		return []string{unit}
	}
	base, suffix, ok := strings.Cut(unit, "@")
	if !ok {
		base, suffix = strings.TrimSuffix(unit, ".service"), ""
	}
	units := make([]string, count)
	for i := range units {
		units[i] = base + "@" + strconv.Itoa(i+1) + suffix
	}
	return units
}

// TierOf returns the tier of a service: the one that its config names, else the
// one of its own name, else "".
func (c *Config) TierOf(service string) string {
	if t := c.Services[service].Tier; t != "" {
		return t
	}
	if slices.Contains(c.TierNames(), service) {
		return service
	}
	return ""
}

func (c *Config) tier(name string) Tier {
	for _, t := range c.Tiers {
		if t.Name == name {
			return t
		}
	}
	return Tier{Name: name}
}

// IsGateway reports whether a tier restarts after all others: one that is
// marked so, and always the tier named "gateway".
func (c *Config) IsGateway(tier string) bool {
	return tier == GatewayTier || c.tier(tier).Gateway
}

// TierDoneTimeout returns how long a restart in tier may take; zero means the
// unit's own stop + start timeout + 5 s.
func (c *Config) TierDoneTimeout(tier string) time.Duration { return c.tier(tier).DoneTimeout.D() }

// TierSettle returns how long a restarted unit of tier must stay up before the
// restart counts as done.
func (c *Config) TierSettle(tier string) time.Duration {
	return cmp.Or(c.tier(tier).Settle, c.Settle).D()
}

// tierRank is a tier's place in the order; an unknown one comes after all.
func tierRank(tiers []string, tier string) int {
	if i := slices.Index(tiers, tier); i >= 0 {
		return i
	}
	return len(tiers)
}

// cmpInstance orders by service, host and index, numbers in names by value:
// h2 comes before h10.
func cmpInstance(a, b Instance) int {
	return cmp.Or(cmpNatural(a.Service, b.Service), cmpNatural(a.Host, b.Host), cmp.Compare(a.N, b.N))
}

// cmpNatural orders names by what precedes their last number, then by that
// number's value.
func cmpNatural(a, b string) int {
	key := func(s string) (string, int) {
		prefix, digits, _ := lastNumber(s)
		if digits == "" {
			return prefix, -1
		}
		n, _ := strconv.Atoi(digits)
		return prefix, n
	}
	pa, na := key(a)
	pb, nb := key(b)
	return cmp.Or(cmp.Compare(pa, pb), cmp.Compare(na, nb), cmp.Compare(a, b))
}
