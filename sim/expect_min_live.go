package sim

import (
	"fmt"
	"math"
	"slices"
	"time"
)

type minLiveArgs struct {
	Tier    TierRef  `yaml:"tier" json:"tier" jsonschema:"required"`
	Percent *float64 `yaml:"percent" json:"percent,omitempty"`
	Count   *int     `yaml:"count" json:"count,omitempty"`
}

func (a *minLiveArgs) validate(*Scenario) []string {
	if (a.Percent == nil) == (a.Count == nil) {
		return []string{"want percent or count"}
	}
	if a.Percent != nil && (*a.Percent < 0 || *a.Percent > 100) {
		return []string{fmt.Sprintf("percent: %v is not between 0 and 100", *a.Percent)}
	}
	return nil
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "min_live", Help: "how many instances of a tier stay up at every moment",
		Example: "min_live: {tier: web, percent: 50}", Always: true,
		New: func() any { return new(minLiveArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*minLiveArgs)
			curve, total := r.liveCurve(string(a.Tier))
			f := Finding{Armed: max(0, len(curve)-1)}
			want := 0
			if a.Count != nil {
				want = *a.Count
			} else {
				want = int(math.Ceil(*a.Percent / 100 * float64(total)))
			}
			low := lowest(curve)
			if len(curve) > 0 && low.live < want {
				f.violate(r.seqs(append(r.downAt(string(a.Tier), low.at), low.at)...), "only %d of %d instances of %s were up at %v, want at least %d",
					low.live, total, a.Tier, round(r.at(low.at)), want)
			}
			return f
		},
	})
}

// livePoint is how many instances of a tier are up from event at on.
type livePoint struct{ at, live int }

// liveCurve follows the number of active instances of a tier through the run.
func (r *Record) liveCurve(tier string) (curve []livePoint, total int) {
	type change struct {
		at, delta int
	}
	var changes []change
	live := 0
	for _, name := range r.names {
		m := r.members[name]
		if m.Tier != tier {
			continue
		}
		total++
		up := false
		for k, u := range m.units {
			if u.active == up {
				continue
			}
			up = u.active
			if k == 0 {
				live++
				continue
			}
			delta := 1
			if !up {
				delta = -1
			}
			changes = append(changes, change{u.at, delta})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return a.at - b.at })
	curve = append(curve, livePoint{0, live})
	for _, c := range changes {
		live += c.delta
		curve = append(curve, livePoint{c.at, live})
	}
	return curve, total
}

func lowest(curve []livePoint) livePoint {
	return slices.MinFunc(curve, func(a, b livePoint) int { return a.live - b.live })
}

// downAt returns the events that brought down the instances of tier that were
// down at event i, at most five.
func (r *Record) downAt(tier string, i int) []int {
	var out []int
	for _, name := range r.names {
		m := r.members[name]
		if m.Tier != tier || m.activeAt(i) {
			continue
		}
		for k := len(m.units) - 1; k >= 0; k-- {
			if m.units[k].at <= i {
				out = append(out, m.units[k].at)
				break
			}
		}
	}
	return out[:min(5, len(out))]
}

// round makes a duration readable: a tenth of its leading unit.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
