package sim

import "github.com/sgfleet/sgfleet/fleet"

type finishedArgs struct {
	Op     OpRef          `yaml:"op,scalar" json:"op" jsonschema:"required"`
	Within fleet.Duration `yaml:"within" json:"within,omitempty"` // of its dispatch; 0: before the end of the run
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "finished", Help: "the dispatcher ended, with its report, in time",
		Example: "finished: {op: r1, within: 90s}", Finally: true,
		New: func() any { return new(finishedArgs) },
		Judge: func(r *Record, args any) Finding {
			a := args.(*finishedArgs)
			o := r.op(string(a.Op))
			f := Finding{Armed: 1}
			switch {
			case o.dispatch < 0:
				f.Armed = 0
				f.violate(nil, "%s was never dispatched", a.Op)
			case o.report < 0:
				f.violate(r.seqs(o.dispatch, o.published()), "%s had no report by the end of the run", a.Op)
			case a.Within > 0 && r.at(o.report)-r.at(o.dispatch) > a.Within.D():
				f.violate(r.seqs(o.dispatch, o.report), "%s took %v, want at most %v", a.Op, round(r.at(o.report)-r.at(o.dispatch)), a.Within.D())
			}
			return f
		},
	})
}
