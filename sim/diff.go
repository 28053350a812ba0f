package sim

import (
	"fmt"
	"io"
	"slices"
)

// Divergence is where two event logs part.
type Divergence struct {
	Index int  // of the first event that differs; len of the shorter log when that ends first
	A, B  bool // the log has an event there
}

// Diverge finds the first event in which two logs differ; ok is false when they
// are the same.
func Diverge(a, b []Event) (d Divergence, ok bool) {
	n := min(len(a), len(b))
	for i := range n {
		if !sameEvent(a[i], b[i]) {
			return Divergence{i, true, true}, true
		}
	}
	if len(a) == len(b) {
		return Divergence{}, false
	}
	return Divergence{n, n < len(a), n < len(b)}, true
}

func sameEvent(a, b Event) bool {
	if a.T != b.T || a.Actor != b.Actor || a.Kind != b.Kind || a.Op != b.Op || a.Host != b.Host || a.Instance != b.Instance ||
		a.Detail != b.Detail || a.Cause != b.Cause || len(a.Attrs) != len(b.Attrs) {
		return false
	}
	for k, v := range a.Attrs {
		if b.Attrs[k] != v {
			return false
		}
	}
	return true
}

// diffContext is how many common events are shown before two logs part, and how
// many of each after.
const diffContext = 6

// WriteDiff prints where two logs part, with what they had in common just
// before.
func WriteDiff(w io.Writer, nameA, nameB string, a, b []Event) (same bool) {
	d, differs := Diverge(a, b)
	if !differs {
		fmt.Fprintf(w, "%s and %s are the same: %d events\n", nameA, nameB, len(a))
		return true
	}
	fmt.Fprintf(w, "%s and %s part at event %d of %d and %d\n", nameA, nameB, d.Index+1, len(a), len(b))
	for _, e := range a[max(0, d.Index-diffContext):d.Index] {
		fmt.Fprintf(w, "    %s\n", EventLine(e))
	}
	side := func(mark, name string, events []Event) {
		if d.Index >= len(events) {
			fmt.Fprintf(w, "  %s (%s ends here)\n", mark, name)
			return
		}
		for _, e := range events[d.Index:min(len(events), d.Index+diffContext)] {
			fmt.Fprintf(w, "  %s %s\n", mark, EventLine(e))
		}
	}
	side("-", nameA, a)
	side("+", nameB, b)
	if d.A && d.B {
		explainDiff(w, a[d.Index], b[d.Index])
	}
	return false
}

// explainDiff says in which fields two events differ.
func explainDiff(w io.Writer, a, b Event) {
	say := func(what, x, y string) {
		if x != y {
			fmt.Fprintf(w, "    %s: %q, and %q\n", what, x, y)
		}
	}
	say("time", stamp(a.T)+fmt.Sprintf(" +%dns", a.T%1e6), stamp(b.T)+fmt.Sprintf(" +%dns", b.T%1e6))
	say("kind", a.Kind, b.Kind)
	say("actor", a.Actor, b.Actor)
	say("instance", a.Instance, b.Instance)
	say("op", a.Op, b.Op)
	say("detail", a.Detail, b.Detail)
	say("cause", fmt.Sprint(a.Cause), fmt.Sprint(b.Cause))
	var keys []string
	for k := range a.Attrs {
		keys = append(keys, k)
	}
	for k := range b.Attrs {
		if _, both := a.Attrs[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		say(k, a.Attrs[k], b.Attrs[k])
	}
}
