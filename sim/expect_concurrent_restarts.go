package sim

type concurrentArgs struct {
	Per string `yaml:"per" json:"per,omitempty" jsonschema:"enum=fleet,enum=host,enum=tier"` // default fleet
	Max int    `yaml:"max" json:"max" jsonschema:"required"`
	Op  OpRef  `yaml:"op" json:"op,omitempty"`
}

func (a *concurrentArgs) validate(*Scenario) []string {
	if a.Max < 1 {
		return []string{"max: want 1 or more"}
	}
	return nil
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "concurrent_restarts", Help: "how many restarts may be running at once",
		Example: "concurrent_restarts: {per: host, max: 4}", Always: true,
		New: func() any { return new(concurrentArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*concurrentArgs)
			var f Finding
			groups := map[string][]interval{}
			var order []string
			for _, rs := range r.restarts {
				m := r.members[rs.instance]
				if m == nil || a.Op != "" && (rs.op == nil || rs.op.name != string(a.Op)) {
					continue
				}
				k := map[string]string{"host": m.Host, "tier": "tier " + m.Tier}[a.Per]
				if k == "" {
					k = "the fleet"
				}
				if groups[k] == nil {
					order = append(order, k)
				}
				groups[k] = append(groups[k], interval{rs.at, rs.done})
				f.Armed++
			}
			for _, k := range order {
				if most, open := r.overlaps(groups[k]); most > a.Max {
					f.violate(r.seqs(open[:min(6, len(open))]...), "%s: %d restarts ran at once, want at most %d", k, most, a.Max)
				}
			}
			return f
		},
	})
}
