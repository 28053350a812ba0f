package sim

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

type reportArgs struct {
	Op         OpRef    `yaml:"op" json:"op" jsonschema:"required"`
	Exit       *int     `yaml:"exit" json:"exit,omitempty"`
	OK         *int     `yaml:"ok" json:"ok,omitempty"`
	Failed     []string `yaml:"failed" json:"failed,omitempty"`
	Refused    []string `yaml:"refused" json:"refused,omitempty"`
	Unfinished []string `yaml:"unfinished" json:"unfinished,omitempty"`
	Silent     []string `yaml:"silent" json:"silent,omitempty"`
	Note       string   `yaml:"note" json:"note,omitempty"` // part of a note below the roster
}

func (a *reportArgs) validate(sc *Scenario) []string {
	var out []string
	names := sc.plan.InstanceNames()
	for _, list := range [][]string{a.Failed, a.Refused, a.Unfinished, a.Silent} {
		for _, n := range list {
			if !slices.Contains(names, n) {
				out = append(out, "no instance is called "+strconv.Quote(n))
			}
		}
	}
	if a.Exit == nil && a.OK == nil && len(a.Failed)+len(a.Refused)+len(a.Unfinished)+len(a.Silent) == 0 && a.Note == "" {
		out = append(out, "says nothing: exit, ok (a number), failed, refused, unfinished or silent (lists of instances), or note (a text)")
	}
	return out
}

func init() {
	registerExpectation(ExpectSpec{
		Name: "report", Help: "what the dispatcher's report says: its exit code, who is named as what, and a note below the roster",
		Example: "report: {op: r1, exit: 4, silent: [web@host-002]}", Finally: true,
		New:   func() any { return new(reportArgs) },
		Judge: judgeReportIs,
	})
}

func judgeReportIs(r *Record, args any) Finding {
	a := args.(*reportArgs)
	o := r.op(string(a.Op))
	f := Finding{Armed: 1}
	if o.report < 0 {
		f.violate(r.seqs(o.dispatch, o.published()), "%s had no report by the end of the run", a.Op)
		return f
	}
	e := r.Events[o.report]
	at := r.seqs(o.published(), o.report)
	if a.Exit != nil && e.Attr("exit") != strconv.Itoa(*a.Exit) {
		f.violate(at, "the report of %s gives exit code %s, want %d", a.Op, e.Attr("exit"), *a.Exit)
	}
	if n := len(splitNames(e.Attr("ok"))); a.OK != nil && n != *a.OK {
		f.violate(at, "the report of %s calls %d instances ok, want %d", a.Op, n, *a.OK)
	}
	for class, want := range map[string][]string{"failed": a.Failed, "refused": a.Refused, "unfinished": a.Unfinished, "silent": a.Silent} {
		got := splitNames(e.Attr(class))
		for _, n := range want {
			if !slices.Contains(got, n) {
				f.violate(at, "the report of %s does not call %s %s (it does: %s)", a.Op, n, class, orNobody(got))
			}
		}
	}
	if notes := e.Attr("notes"); !strings.Contains(notes, a.Note) {
		f.violate(at, "the report of %s notes nothing like %q (it notes: %s)", a.Op, a.Note, cmp.Or(notes, "nothing"))
	}
	slices.SortFunc(f.Violations, func(a, b Violation) int { return strings.Compare(a.Detail, b.Detail) })
	return f
}

func orNobody(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	return list(names, 6)
}
