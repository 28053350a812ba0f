package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// faultPreset is one kind of trouble that an op is rehearsed under.
type faultPreset struct {
	name, help string
	timeline   func() []map[string]any
}

// rehearsedOp is the op's name in a rehearsal, and rehearsedAt when it is sent.
const (
	rehearsedOp = "op"
	rehearsedAt = 20 * time.Second
)

// presets are the kinds of trouble, in the order in which they are reported.
var presets = []faultPreset{
	{"none", "as it is", func() []map[string]any { return nil }},
	{"one-bad-host", "one host crashes right after the op was sent, another's units are slow", func() []map[string]any {
		return []map[string]any{
			entry(21*time.Second, "crash", map[string]any{"host": "*", "pick": "one", "for": "60s"}),
			entry(15*time.Second, "slow_restart", map[string]any{"host": "*", "pick": "one", "factor": 5, "for": "3m"}),
		}
	}},
	{"failing-units", "one unit in twenty does not come back", func() []map[string]any {
		return []map[string]any{entry(15*time.Second, "fail_restart", map[string]any{"target": "all", "pick": "5%", "then": "dead", "for": "4m"})}
	}},
	{"slow-git", "git is ten times slower on a third of the hosts", func() []map[string]any {
		return []map[string]any{entry(15*time.Second, "slow_git", map[string]any{"host": "*", "pick": "30%", "factor": 10, "for": "4m"})}
	}},
	{"redis-restart", "Redis restarts two seconds after the op was sent and loses its data", func() []map[string]any {
		return []map[string]any{entry(22*time.Second, "redis", map[string]any{"action": "restart", "down": "3s"})}
	}},
	{"flaky-network", "hosts are cut off one after another for ten seconds each", func() []map[string]any {
		var out []map[string]any
		for i := range 6 {
			at := 18*time.Second + time.Duration(i)*6*time.Second
			out = append(out, entry(at, "partition", map[string]any{"from": "*", "to": "redis", "pick": "one", "for": "10s"}))
		}
		return out
	}},
}

func entry(at time.Duration, action string, args map[string]any) map[string]any {
	return map[string]any{"at": at.String(), action: args}
}

// FaultPresets lists the presets that a rehearsal knows: name and meaning.
func FaultPresets() [][2]string {
	var out [][2]string
	for _, p := range presets {
		out = append(out, [2]string{p.name, p.help})
	}
	return out
}

func choosePresets(names []string) ([]faultPreset, error) {
	if len(names) == 0 {
		return presets, nil
	}
	out := presets[:1] // as it is, always
	for _, n := range names {
		i := slices.IndexFunc(presets, func(p faultPreset) bool { return p.name == n })
		if i < 0 {
			var known []string
			for _, p := range presets {
				known = append(known, p.name)
			}
			return nil, fmt.Errorf("no fault preset is called %q (%s)", n, cmp.Or(fleet.DidYouMean(n, known), "known: "+strings.Join(known, ", ")))
		}
		if i > 0 {
			out = append(slices.Clone(out), presets[i])
		}
	}
	return out, nil
}
