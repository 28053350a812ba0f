package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// rosterColumn is one column of the roster's table.
type rosterColumn struct {
	name string
	// drop says in which order columns give way on a narrow terminal, the
	// lowest first; 0 stays. The unit follows from the service, and the notes
	// tell who is behind.
	drop int
	text func(e Entry) string
}

var rosterColumns = []rosterColumn{
	{"HOST", 0, func(e Entry) string { return e.Host }},
	{"SERVICE", 0, func(e Entry) string { return strings.Replace(e.Instance, "@"+e.Host, "", 1) }},
	{"UNIT", 1, func(e Entry) string { return e.Unit }},
	{"STATE", 0, func(e Entry) string { return e.State }},
	{"RUNNING", 4, func(e Entry) string { return shortRevision(e.RunningRevision) }},
	{"CHECKOUT", 2, func(e Entry) string { return shortRevision(e.CheckoutRevision) }},
	{"UPTIME", 3, func(e Entry) string {
		if e.UptimeMS == 0 {
			return ""
		}
		return Humane(time.Duration(e.UptimeMS) * time.Millisecond)
	}},
	{"LAST SEEN", 5, func(e Entry) string { return ago(e.LastSeenMS) }},
	{"NOTES", 0, func(e Entry) string { return strings.Join(e.Notes, ", ") }},
}

// notesRoom is how much of a longer note is worth more than another column.
const notesRoom = 24

// FormatRosterTable draws entries as a table: a line of headings and one for
// each entry, none wider than cols characters. The least important columns give
// way first, then the notes are cut short. With cols 0 all is shown.
func FormatRosterTable(entries []Entry, cols int) []string {
	type column struct {
		rosterColumn
		cells []string
		width int
		empty bool
	}
	var columns []column
	for _, rc := range rosterColumns {
		c := column{rosterColumn: rc, cells: []string{rc.name}, empty: true}
		for _, e := range entries {
			text := printable(rc.text(e))
			c.empty = c.empty && text == ""
			c.cells = append(c.cells, cmp.Or(text, "-"))
		}
		for _, cell := range c.cells {
			c.width = max(c.width, utf8.RuneCountInString(cell))
		}
		columns = append(columns, c)
	}
	const gap = 2
	fits := func() bool {
		width := -gap
		for i, c := range columns {
			if i == len(columns)-1 {
				c.width = min(c.width, notesRoom)
			}
			width += c.width + gap
		}
		return width <= cols
	}
	rank := func(c column) int {
		if c.drop > 0 && c.empty {
			return -1 // it says nothing
		}
		return c.drop
	}
	for cols > 0 && !fits() {
		least := -1
		for i, c := range columns {
			if c.drop > 0 && (least < 0 || rank(c) < rank(columns[least])) {
				least = i
			}
		}
		if least < 0 {
			break
		}
		columns = slices.Delete(columns, least, least+1)
	}
	lines := make([]string, len(entries)+1)
	for i := range lines {
		var b strings.Builder
		for _, c := range columns {
			b.WriteString(c.cells[i] + strings.Repeat(" ", c.width-utf8.RuneCountInString(c.cells[i])+gap))
		}
		lines[i] = strings.TrimRight(b.String(), " ")
		if r := []rune(lines[i]); cols > 0 && len(r) > cols {
			lines[i] = string(r[:cols-1]) + "…"
		}
	}
	return lines
}

// FirstTroubled returns the n entries that a short terminal shows, those in
// trouble before those that are well, and a line that counts the others; "" when
// all are shown.
func FirstTroubled(entries []Entry, n int) (shown []Entry, more string) {
	if len(entries) <= n {
		return entries, ""
	}
	ordered := slices.Clone(entries)
	slices.SortStableFunc(ordered, func(a, b Entry) int {
		return cmp.Compare(b.attention(), a.attention())
	})
	return ordered[:n], fmt.Sprintf("… and %d more: %s", len(ordered)-n, countStates(ordered[n:]))
}

// attention is e's trouble, as far as it is one.
func (e Entry) attention() int {
	if !e.Trouble() {
		return troubleNone
	}
	return e.trouble
}
