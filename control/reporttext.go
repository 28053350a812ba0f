package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sgfleet/sgfleet/fleet"
)

// maxNamed bounds how many instances the summary's sentence names for each
// class.
const maxNamed = 3

// Text renders the report as messages of at most [fleet.MaxChat] bytes: trouble
// first, identical answers folded into one line, and last one sentence.
func (r *Report) Text() []string {
	var lines []string
	for _, results := range r.sections() {
		lines = append(lines, sectionLines(results)...)
	}
	for _, t := range countTexts(r.Unattributed) {
		lines = append(lines, "answered (unattributed): "+t)
	}
	for _, n := range r.Notes {
		lines = append(lines, "note: "+n)
	}
	return fleet.ChatMessages(append(lines, r.Summary))
}

// sections are the instances by class, trouble first. A failed unit that was
// left alone counts as ok, for nobody asked for it, and is trouble all the same.
func (r *Report) sections() [][]Result {
	var out [][]Result
	add := func(class Class, left bool) {
		var s []Result
		for _, i := range r.Instances {
			if i.Class == class && i.leftFailed() == left {
				s = append(s, i)
			}
		}
		out = append(out, s)
	}
	for _, class := range Classes {
		add(class, false)
		if class == ClassFailed {
			add(ClassOK, true)
		}
	}
	return out
}

// Ordered returns the instances in the order of the report's text.
func (r *Report) Ordered() []Result { return slices.Concat(r.sections()...) }

// answers are the instances that answered the same.
type answers struct {
	words   string
	names   []fleet.Instance
	journal []string
	left    bool  // failed units, which were left alone
	alike   bool  // only their timings differ, which the line then gives as a range
	from    int64 // ms, quickest and slowest
	to      int64
}

// sectionLines has a line for each different answer in a section. What went
// well differs in its timing alone, and is folded all the same.
func sectionLines(results []Result) []string {
	groups := map[string]*answers{}
	var order []*answers
	for _, i := range results {
		inst, err := fleet.ParseInstance(i.Instance)
		if err != nil {
			continue // every name of a report has been parsed before
		}
		words := i.words()
		revision := ""
		if i.Class == ClassOK && i.Revision != "" {
			revision = " (at " + short(i.Revision) + ")"
		}
		key := words + revision
		alike := (i.Status == OK || i.Status == Joined) && i.DoneMS >= 0 && !i.Late && !i.Unknown
		if alike {
			key = string(i.Status) + revision
		}
		g := groups[key]
		if g == nil {
			g = &answers{words: words + revision, journal: i.Journal, left: i.leftFailed(), alike: alike, from: i.DoneMS}
			groups[key] = g
			order = append(order, g)
		} else if alike {
			g.words = string(i.Status) + revision
		}
		g.names = append(g.names, inst)
		g.from, g.to = min(g.from, i.DoneMS), max(g.to, i.DoneMS)
	}
	var lines []string
	for _, g := range order {
		names := fleet.FoldInstances(g.names)
		line := strings.Join(names, ", ")
		if n := len(g.names); n > 1 {
			line += fmt.Sprintf(" (%d)", n)
		}
		line += " " + g.words
		if g.alike && len(g.names) > 1 {
			from, to := round(time.Duration(g.from)*time.Millisecond), round(time.Duration(g.to)*time.Millisecond)
			line += ", after " + from.String()
			if to > from {
				line += " to " + to.String()
			}
		}
		if g.left {
			it := "it"
			if len(g.names) > 1 {
				it = "them"
			}
			line += fmt.Sprintf("; name %s (%s) or --include-failed", it, strings.Join(names, ","))
		}
		lines = append(lines, line)
		for _, j := range g.journal {
			lines = append(lines, "    | "+j)
		}
	}
	return lines
}

// summary is the report's last line.
func (r *Report) summary() string {
	var parts []string
	skipped := r.skippedParts()
	for _, class := range []Class{ClassOK, ClassFailed, ClassRefused, ClassSilent, ClassUnfinished} {
		n := r.Counts.Of(class)
		if class == ClassOK {
			n -= r.Counts.Skipped
		}
		switch {
		case n > 0:
		case class != ClassOK, len(r.Instances) == 0:
			continue
		case len(r.because(ReasonObserve)) == len(r.Instances):
			// "0 ok" would be no news of a fleet that only observes.
			parts = append(parts, skipped...)
			continue
		}
		part := fmt.Sprintf("%d %s", n, class)
		if class == ClassOK && r.NoWait {
			part = fmt.Sprintf("%d accepted", n)
		}
		if class != ClassOK {
			part += " (" + named(r.those(func(i Result) bool { return i.Class == class })) + ")"
		}
		parts = append(parts, part)
		if class == ClassOK {
			parts = append(parts, skipped...)
		}
	}
	if n := len(r.Unattributed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d answered (unattributed)", n))
	}
	took := round(time.Duration(r.TookMS) * time.Millisecond)
	return fmt.Sprintf("%s %s: %s in %v [op %s]", r.Op, clip(r.Target, 120), strings.Join(parts, ", "), took, r.ID)
}

// skipReasons are the words for why instances were skipped, what needs
// somebody's attention first. Those that would have done it count apart.
var skipReasons = []struct {
	reason Reason
	words  string
}{
	{ReasonFailed, ": failed, left alone"},
	{ReasonStopped, ": stopped"},
	{ReasonNoCheckout, ": no checkout"},
	{ReasonAborted, ": told not to restart"},
	{"", ""},
}

// skippedParts is the summary's part on those on which nothing was done.
func (r *Report) skippedParts() (parts []string) {
	var why []string
	n := 0
	for _, s := range skipReasons {
		if those := r.because(s.reason); len(those) > 0 {
			n += len(those)
			why = append(why, named(those)+s.words)
		}
	}
	if n > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped (%s)", n, strings.Join(why, "; ")))
	}
	if n := len(r.because(ReasonObserve)); n > 0 {
		parts = append(parts, fmt.Sprintf("%d would %s (observe)", n, r.Op))
	}
	return parts
}

// because returns the instances that were skipped for a reason, "" being any
// that has no words here: a newer daemon's, or none, an older one's.
func (r *Report) because(reason Reason) []fleet.Instance {
	return r.those(func(i Result) bool {
		known := i.Reason == ReasonObserve
		for _, s := range skipReasons {
			known = known || i.Reason == s.reason
		}
		return i.Skipped() && (i.Reason == reason || reason == "" && !known)
	})
}

func (r *Report) those(want func(Result) bool) (all []fleet.Instance) {
	for _, i := range r.Instances {
		if inst, err := fleet.ParseInstance(i.Instance); err == nil && want(i) {
			all = append(all, inst)
		}
	}
	return all
}

// named lists the first few of some instances, folded.
func named(all []fleet.Instance) string {
	folded := fleet.FoldInstances(all)
	more := ""
	if len(folded) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(folded)-maxNamed)
		folded = folded[:maxNamed]
	}
	for i := range folded {
		folded[i] = clip(folded[i], 120)
	}
	return strings.Join(folded, ", ") + more
}

// countTexts folds equal texts: "restarting (3)".
func countTexts(texts []string) []string {
	counts := map[string]int{}
	for _, t := range texts {
		counts[t]++
	}
	out := slices.Sorted(maps.Keys(counts))
	for i, t := range out {
		if n := counts[t]; n > 1 {
			out[i] = fmt.Sprintf("%s (%d)", t, n)
		}
	}
	return out
}
