package fleet

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

func (v *validator) unit(key, unit string) {
	switch {
	case !unitPattern.MatchString(unit):
		v.fail(key, "letters, digits and : _ . @ \\ - only", "%q is not the name of a unit", printable(unit))
	case unit[0] == '-', unit[0] == '.':
		v.fail(key, "", "%q: the name of a unit does not begin with %c", unit, unit[0])
	}
}

func (v *validator) units() {
	c := v.c
	if p := c.ControlUnitPrefix; p != "" {
		v.unit("control_unit_prefix", p)
	}
	for name, unit := range sorted(c.ControlUnitNames) {
		key := joinPath("control_unit_names", name)
		if _, ok := c.Services[name]; !ok {
			v.fail(key, DidYouMean(name, c.ServiceNames()), "no service is called %q", name).concludedFrom("services")
		}
		if unit != "" {
			v.unit(key, unit)
		}
	}
	if c.ControlProxyUnit != "" {
		v.unit("control_proxy_unit", c.ControlProxyUnit)
	}
	if c.ControlBotUnit != "" {
		v.unit("control_bot_unit", c.ControlBotUnit)
	}
	v.unit("self_unit", c.SelfUnit)
}

// reservedName reports whether a tier or service of this name could not be
// addressed.
func reservedName(name string) bool {
	return name == TargetAll || name == DaemonService || name == "host"
}

func (v *validator) tiers() {
	if len(v.c.Tiers) == 0 {
		v.fail("tiers", "remove the line for the default five", "there is none")
	}
	seen := map[string]bool{}
	for i, t := range v.c.Tiers {
		key := fmt.Sprintf("tiers[%d]", i)
		switch {
		case !ValidName(t.Name):
			v.fail(key+".name", "", "%q is not a name of letters, digits, dot, dash and underscore", t.Name)
		case reservedName(t.Name):
			v.fail(key+".name", "", "%q has a meaning of its own in a target", t.Name)
		case seen[t.Name]:
			v.fail(key+".name", "", "tier %q is there twice", t.Name)
		}
		seen[t.Name] = true
		v.within(key+".done_timeout", t.DoneTimeout.D(), 0, 6*time.Hour)
		v.within(key+".settle", t.Settle.D(), 0, 10*time.Minute)
	}
}

func (v *validator) services() {
	c := v.c
	tiers, from := c.TierNames(), []string{"tiers"}
	for i := range tiers {
		from = append(from, fmt.Sprintf("tiers[%d].name", i))
	}
	for _, name := range c.ServiceNames() {
		s, key := c.Services[name], joinPath("services", name)
		switch {
		case !ValidName(name):
			v.fail(key, "", "%q is not a name of letters, digits, dot, dash and underscore", name)
			continue
		case reservedName(name):
			v.fail(key, "", "%q has a meaning of its own in a target", name)
		case s.Tier != "" && !slices.Contains(tiers, s.Tier):
			v.fail(key+".tier", DidYouMean(s.Tier, tiers), "no tier is called %q", s.Tier).concludedFrom(from...)
		case slices.Contains(tiers, name) && s.Tier != "" && s.Tier != name:
			v.fail(key+".tier", "rename the service", "%s is named like a tier but belongs to %s: restarting %s would hit both", name, s.Tier, name).concludedFrom(from...)
		case s.Tier == "" && c.TierOf(name) == "":
			v.fail(key, "add tier: one of "+strings.Join(tiers, ", "), "has no tier and is not named like one").concludedFrom(append(slices.Clip(from), key+".tier")...)
		}
		if s.ControlledBy != "" {
			v.oneOf(key+".controlled_by", s.ControlledBy, ByHost, BySelf, ByLegacy)
		}
		for i, h := range s.Hosts {
			if !validPattern(h) {
				v.fail(fmt.Sprintf("%s.hosts[%d]", key, i), "", "%q is not a host name, nor one with * in it", printable(h))
			}
		}
		if s.Checkout != "" {
			v.dir(key+".checkout", s.Checkout)
		}
		v.template(key, name, s)
	}
}

// template checks a service's unit against the number of its copies.
func (v *validator) template(key, name string, s Service) {
	unit := UnitName(v.c, name)
	if s.Unit != "" {
		v.unit(key+".unit", s.Unit)
	}
	from := append(unitKeys(name), key+".instances")
	isTemplate := strings.HasSuffix(strings.TrimSuffix(unit, ".service"), "@")
	switch {
	case s.Instances < 0 || s.Instances > maxInstances:
		v.fail(key+".instances", "", "%d copies on one host; want 1 to %d", s.Instances, maxInstances)
	case s.Instances > 1 && s.Unit != "" && !isTemplate:
		v.fail(key+".unit", "such as "+name+"@.service", "%d instances need a template unit, not %s", s.Instances, unit).concludedFrom(from...)
	case s.Instances <= 1 && isTemplate:
		v.fail(key+".unit", "add instances, or name one copy of it", "%s is a template and cannot run by itself", unit).concludedFrom(from...)
	}
}

// unitKeys are the keys that the unit of a service comes from.
func unitKeys(service string) []string {
	return []string{joinPath("services", service) + ".unit", joinPath("control_unit_names", service), "control_unit_prefix"}
}

func hostKeys(a, b string) []string {
	return []string{joinPath("services", a) + ".hosts", joinPath("services", b) + ".hosts"}
}

func (v *validator) dir(key, dir string) {
	switch {
	case !path.IsAbs(dir):
		v.fail(key, "", "%q is not an absolute path", printable(dir))
	case path.Clean(dir) != dir:
		v.fail(key, "write "+path.Clean(dir), "%q can be written shorter, and locks go by the exact path", printable(dir))
	case dir == "/":
		v.fail(key, "", "the root directory is no checkout")
	case strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f }):
		v.fail(key, "", "%q has control characters in it", printable(dir))
	}
}

// oneUnitOneInstance finds two instances that would both control one unit of
// one host.
func (v *validator) oneUnitOneInstance() {
	c := v.c
	owner := map[string][]string{} // unit → services
	for _, name := range c.ServiceNames() {
		for i, u := range c.serviceUnits(name) {
			if i >= maxInstances {
				break
			}
			u = ServiceUnit(u)
			for _, other := range slices.Backward(owner[u]) {
				if other != name && hostsMeet(c.Services[name].Hosts, c.Services[other].Hosts) {
					v.fail(joinPath("services", name), "", "%s is also the unit of service %s", u, other).
						concludedFrom(slices.Concat(unitKeys(name), unitKeys(other), hostKeys(name, other))...)
					break
				}
			}
			if !slices.Contains(owner[u], name) {
				owner[u] = append(owner[u], name)
			}
			if u == ServiceUnit(c.SelfUnit) {
				v.fail(joinPath("services", name), "restart it as sgfleet@HOST", "%s is the daemon's own unit", u).
					concludedFrom(append(unitKeys(name), "self_unit")...)
			}
		}
	}
}

// hostsMeet reports whether one host may match both lists of globs. Two globs
// that begin alike are taken to meet.
func hostsMeet(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, x := range a {
		for _, y := range b {
			xp, _, xGlob := strings.Cut(x, "*")
			yp, _, yGlob := strings.Cut(y, "*")
			if glob(x, y) || glob(y, x) || xGlob && yGlob && (strings.HasPrefix(xp, yp) || strings.HasPrefix(yp, xp)) {
				return true
			}
		}
	}
	return false
}
