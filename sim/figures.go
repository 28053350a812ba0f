package sim

import (
	"slices"
	"time"
)

// Figures are what a rehearsal wants to know of one run.
type Figures struct {
	Ops  []OpFigures   `json:"ops,omitempty"`
	Live []LiveFigures `json:"live,omitempty"` // per tier, in the fleet's order
	End  time.Duration `json:"end_ns"`
}

// OpFigures is what became of one op.
type OpFigures struct {
	Op         string        `json:"op"`
	Finished   bool          `json:"finished"`
	Took       time.Duration `json:"took_ns"` // dispatch → report
	Exit       string        `json:"exit"`
	OK         int           `json:"ok"`
	Failed     []string      `json:"failed,omitempty"`
	Refused    []string      `json:"refused,omitempty"`
	Unfinished []string      `json:"unfinished,omitempty"`
	Silent     []string      `json:"silent,omitempty"`
}

// LiveFigures says how low a tier fell.
type LiveFigures struct {
	Tier  string        `json:"tier"`
	Total int           `json:"total"`
	Start int           `json:"start"` // up at the start
	Low   int           `json:"low"`   // fewest up at one moment
	At    time.Duration `json:"at_ns"` // and when
}

func figures(r *Record) Figures {
	f := Figures{End: r.end}
	for _, o := range r.ops {
		if o.dispatch < 0 {
			continue
		}
		x := OpFigures{Op: o.name}
		if o.report >= 0 {
			e := r.Events[o.report]
			x.Finished, x.Took, x.Exit = true, r.at(o.report)-r.at(o.dispatch), e.Attr("exit")
			x.OK = len(splitNames(e.Attr("ok")))
			x.Failed, x.Refused = splitNames(e.Attr("failed")), splitNames(e.Attr("refused"))
			x.Unfinished, x.Silent = splitNames(e.Attr("unfinished")), splitNames(e.Attr("silent"))
		}
		f.Ops = append(f.Ops, x)
	}
	for _, tier := range r.Scenario.Config.TierNames() {
		if !slices.ContainsFunc(r.names, func(n string) bool { return r.members[n].Tier == tier }) {
			continue
		}
		curve, total := r.liveCurve(tier)
		low := lowest(curve)
		f.Live = append(f.Live, LiveFigures{Tier: tier, Total: total, Start: curve[0].live, Low: low.live, At: r.at(low.at)})
	}
	return f
}
