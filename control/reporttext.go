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
	for _, class := range Classes {
		lines = append(lines, r.classLines(class)...)
	}
	for _, t := range countTexts(r.Unattributed) {
		lines = append(lines, "answered (unattributed): "+t)
	}
	for _, n := range r.Notes {
		lines = append(lines, "note: "+n)
	}
	return fleet.ChatMessages(append(lines, r.Summary))
}

// answers are the instances that answered the same.
type answers struct {
	words   string
	names   []fleet.Instance
	journal []string
	alike   bool  // only their timings differ, which the line then gives as a range
	from    int64 // ms, quickest and slowest
	to      int64
}

// classLines has a line for each different answer in a class. What went well
// differs in its timing alone, and is folded all the same.
func (r *Report) classLines(class Class) []string {
	groups := map[string]*answers{}
	var order []*answers
	for _, i := range r.Instances {
		inst, err := fleet.ParseInstance(i.Instance)
		if err != nil || i.Class != class {
			continue // every name of a report has been parsed before
		}
		words := i.words()
		revision := ""
		if class == ClassOK && i.Revision != "" {
			revision = " (at " + short(i.Revision) + ")"
		}
		key := words + revision
		alike := (i.Status == OK || i.Status == Joined) && i.DoneMS >= 0 && !i.Late && !i.Unknown
		if alike {
			key = string(i.Status) + revision
		}
		g := groups[key]
		if g == nil {
			g = &answers{words: words + revision, journal: i.Journal, alike: alike, from: i.DoneMS}
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
		line := strings.Join(fleet.FoldInstances(g.names), ", ")
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
	for _, class := range []Class{ClassOK, ClassFailed, ClassRefused, ClassSilent, ClassUnfinished} {
		n := r.Counts.Of(class)
		if n == 0 && (class != ClassOK || len(r.Instances) == 0) {
			continue
		}
		part := fmt.Sprintf("%d %s", n, class)
		if class == ClassOK && r.NoWait {
			part = fmt.Sprintf("%d accepted", n)
		}
		if class != ClassOK {
			part += " (" + r.named(class) + ")"
		}
		parts = append(parts, part)
	}
	if n := len(r.Unattributed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d answered (unattributed)", n))
	}
	took := round(time.Duration(r.TookMS) * time.Millisecond)
	return fmt.Sprintf("%s %s: %s in %v [op %s]", r.Op, clip(r.Target, 120), strings.Join(parts, ", "), took, r.ID)
}

// named lists the first few instances of a class, folded.
func (r *Report) named(class Class) string {
	var all []fleet.Instance
	for _, i := range r.Instances {
		if inst, err := fleet.ParseInstance(i.Instance); err == nil && i.Class == class {
			all = append(all, inst)
		}
	}
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
