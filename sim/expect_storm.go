package sim

import "github.com/sgfleet/sgfleet/fleet"

type stormArgs struct {
	Max    int            `yaml:"max" json:"max" jsonschema:"required"`
	Window fleet.Duration `yaml:"window" json:"window" jsonschema:"required"`
	Per    string         `yaml:"per" json:"per,omitempty" jsonschema:"enum=fleet,enum=service"` // default fleet
}

func (a *stormArgs) validate(*Scenario) []string {
	if a.Max < 1 || a.Window <= 0 {
		return []string{"want max 1 or more and a window longer than 0"}
	}
	return nil
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "storm", Help: "how many restarts may begin within a window of time",
		Example: "storm: {max: 5, window: 10s, per: service}", Always: true,
		New: func() any { return new(stormArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*stormArgs)
			var f Finding
			byKey := map[string][]int{}
			for _, rs := range r.restarts {
				k := "the fleet"
				if a.Per == "service" {
					k = rs.instance
				}
				list := append(byKey[k], rs.at)
				byKey[k] = list
				f.Armed++
				if n := len(list); n > a.Max && r.at(rs.at)-r.at(list[n-1-a.Max]) < a.Window.D() {
					f.violate(r.seqs(list[n-1-a.Max:]...), "%s: %d restarts began within %v, want at most %d", k, a.Max+1, round(r.at(rs.at)-r.at(list[n-1-a.Max])), a.Max)
					byKey[k] = nil
				}
			}
			return f
		},
	})
}
