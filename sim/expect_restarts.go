package sim

type restartsArgs struct {
	Selector `yaml:",inline"`
	Bound    `yaml:",inline"`
}

func (a *restartsArgs) validate(sc *Scenario) []string {
	return append(a.Bound.validate(), a.Selector.validate(sc, false)...)
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "restarts", Help: "how many restarts systemd was asked for",
		Example: "restarts: {op: r1, per: service, exactly: 1}", Always: true, Finally: true,
		New: func() any { return new(restartsArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*restartsArgs)
			var items []counted
			for _, rs := range r.restarts {
				m := r.members[rs.instance]
				if m == nil {
					continue
				}
				c := r.counted(m, rs.at)
				if rs.op != nil {
					c.op = rs.op.name
				}
				items = append(items, c)
			}
			return r.count(a.Selector, a.Bound, "restarts", items)
		},
	})
}
