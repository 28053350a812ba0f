package sim

type revisionArgs struct {
	Op OpRef `yaml:"op,scalar" json:"op" jsonschema:"required"`
	// Running is what the services must run on; "head" (default): what their
	// checkouts stand at; "tip": the remote's tip when the op was published.
	Running string `yaml:"running" json:"running,omitempty" jsonschema:"enum=head,enum=tip"`
}

func (a *revisionArgs) validate(sc *Scenario) []string { return Selector{}.validate(sc, true) }

func init() {
	registerExpectation(ExpectSpec{
		Name: "revision", Help: "every instance that reported success on the op runs the revision it was to run",
		Example: "revision: {op: u1, running: tip}", Finally: true,
		New: func() any { return new(revisionArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*revisionArgs)
			o := r.op(string(a.Op))
			var f Finding
			for i, e := range r.Events {
				m := r.members[e.Instance]
				if e.Kind != EvState || m == nil || m.checkout == "" || o.published() < 0 {
					continue
				}
				fin := r.final(o, m.name)
				if fin < 0 || r.Events[fin].Attr("phase") != "done" || r.Events[fin].Attr("status") != "ok" {
					continue
				}
				f.Armed++
				want, why := e.Attr("head"), "its checkout stands at"
				if a.Running == "tip" {
					if tip, _ := r.tip(m.checkout, r.at(o.published())); tip != "" {
						want, why = tip, "the remote's tip was"
					}
				}
				if running := e.Attr("running"); running != want && !r.descends(m.checkout, want, running) {
					f.violate(r.seqs(o.published(), r.restartOf(o, m.name), fin, i), "%s runs %s, but %s %s", m.name, short(running), why, short(want))
				}
			}
			return f
		},
	})
}
