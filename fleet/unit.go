package fleet

import "strings"

// ServiceTiers are the original system's five tiers in the order every command
// names them; the gateway, which holds the live chat connection, is named
// first and restarted last.
var ServiceTiers = []string{"gateway", "inference", "agents", "consolidation", "web"}

// GatewayTier is the tier that restarts after all others.
const GatewayTier = "gateway"

// DefaultUnitPrefix precedes a service's name in its unit's.
const DefaultUnitPrefix = "stargazer-"

// UnitName resolves the systemd unit of a service: the explicit map
// control_unit_names first, then a unit given with the service itself, then
// control_unit_prefix + name. A nil config means defaults. Pure.
//
// It is the original's unit_name_for; like there, the result has no suffix
// unless the map gives one, which systemd reads as ".service" (see
// [ServiceUnit]).
func UnitName(c *Config, service string) string {
	if c == nil {
		return DefaultUnitPrefix + service
	}
	if u := c.ControlUnitNames[service]; u != "" {
		return u
	}
	if u := c.Services[service].Unit; u != "" {
		return u
	}
	return c.ControlUnitPrefix + service
}

// Units resolves every service to its systemd unit, in tier order: the
// original's fleet_units, and the one source of truth for each command that
// names units. A nil config means defaults. Pure.
//
// The defaults give one service a tier and so the original's five. A service
// that runs several copies gives one unit a copy, its index in the template's
// name.
func Units(c *Config) []string {
	if c == nil {
		c = Default()
	}
	var units []string
	for _, name := range c.ServiceNames() {
		units = append(units, c.serviceUnits(name)...)
	}
	return units
}

// ServiceUnit adds the suffix systemd would: a name without one means
// ".service".
func ServiceUnit(unit string) string {
	if i := strings.LastIndexByte(unit, '.'); i >= 0 {
		switch unit[i+1:] {
		case "service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope", "device":
			return unit
		}
	}
	return unit + ".service"
}
