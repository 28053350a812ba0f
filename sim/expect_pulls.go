package sim

type pullsArgs struct {
	Selector `yaml:",inline"`
	Bound    `yaml:",inline"`
}

func (a *pullsArgs) validate(sc *Scenario) []string {
	return append(a.Bound.validate(), a.Selector.validate(sc, true)...)
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "pulls", Help: "how many pulls really ran (a joined one does not count)",
		Example: "pulls: {op: p1, per: host+checkout, exactly: 1}", Always: true, Finally: true,
		New: func() any { return new(pullsArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*pullsArgs)
			var items []counted
			for _, p := range r.pulls {
				c := counted{at: p.start, instance: p.by, host: p.host, path: p.path}
				if p.op != nil {
					c.op = p.op.name
				}
				if m := r.members[p.by]; m != nil {
					c.tier = m.Tier
				}
				items = append(items, c)
			}
			return r.count(a.Selector, a.Bound, "pulls", items)
		},
	})
}
