package sim

type pullOverlapArgs struct {
	Max int `yaml:"max,scalar" json:"max"`
}

func (a *pullOverlapArgs) validate(sc *Scenario) []string {
	return Selector{}.validate(sc, true)
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "pull_overlap", Help: "how many pulls of one checkout may run beside another (0: none ever)",
		Example: "pull_overlap: 0", Always: true,
		New: func() any { return new(pullOverlapArgs) },
		Judge: func(r *Record, args any) Finding {
			var f Finding
			byTree := map[string][]interval{}
			var order []string
			for _, p := range r.pulls {
				k := p.host + ":" + p.path
				if byTree[k] == nil {
					order = append(order, k)
				}
				byTree[k] = append(byTree[k], interval{p.start, p.end})
				f.Armed++
			}
			for _, k := range order {
				if most, open := r.overlaps(byTree[k]); most > args.(*pullOverlapArgs).Max+1 {
					f.violate(r.seqs(open...), "%d pulls of %s ran at once", most, k)
				}
			}
			return f
		},
	})
}
