package main

import (
	"errors"
	"fmt"

	"github.com/sgfleet/sgfleet/cmd/internal/cli"
	"github.com/sgfleet/sgfleet/fleet"
)

// targetsTable is the syntax of a TARGET, in help and in the manual.
const targetsTable = `Targets, joined by commas:
  all           every instance (never the daemons)
  TIER          all services of a tier
  SERVICE       a service on every host
  SERVICE@HOST  one instance; SERVICE@HOST#N one copy of it
  host:NAME     everything on a host
  sgfleet@HOST  the daemon itself
  !PART         leaves out what PART selects: all,!host:gw-1
  *, [1-4,7]    in a name: any characters, each of these numbers
`

// checkedTarget parses s and requires that each part of it selects something:
// a mistyped name is a usage error with the nearest one, a name that nobody
// bears is "nobody matched".
func checkedTarget(s string, cfg *fleet.Config, reg fleet.Registry) (fleet.Target, error) {
	members := reg.Members()
	t, err := fleet.ParseTarget(s, cfg, members...)
	if err != nil {
		return t, &cli.Error{Code: exitUsage, Err: err}
	}
	if err := t.Check(members); err != nil {
		if errors.Is(err, fleet.ErrNoMatch) {
			return t, &cli.Error{Code: exitNobody, Err: err, Hint: "'sgfleet services' lists who is there."}
		}
		return t, &cli.Error{Code: exitUsage, Err: err}
	}
	return t, nil
}

// localServices returns what host runs and target selects, in tier order; an
// empty target is everything.
func localServices(cfg *fleet.Config, host, target string) ([]fleet.LocalService, fleet.Target, error) {
	all := cfg.LocalServices(host)
	if target == "" {
		target = fleet.TargetAll
	}
	members := make([]fleet.Member, len(all))
	for i, s := range all {
		members[i] = s.Member()
	}
	t, err := fleet.ParseTarget(target, cfg, members...)
	if err != nil {
		return nil, t, &cli.Error{Code: exitUsage, Err: err}
	}
	var out []fleet.LocalService
	for _, s := range all {
		if t.Match(s.Member()) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, t, &cli.Error{
			Code: exitNobody, Err: fmt.Errorf("target %q: nothing of it runs on %s", target, host),
			Hint: "'sgfleet units --here' lists what this host's config says.",
		}
	}
	return out, t, nil
}
