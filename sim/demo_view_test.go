package sim

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sgfleet/sgfleet/control"
)

// A row that wraps makes the next drawing miss; a host without a service is
// not one that has not answered.
func TestDemoViewFitsTheTerminal(t *testing.T) {
	sgr := regexp.MustCompile(`\x1b\[[0-9;]*[mKA]`)
	for _, width := range []int{20, 60, 80, 120} {
		var out bytes.Buffer
		v := newDemoView(DemoOptions{Out: &out, TTY: true, Width: func() int { return width }}, demoPlan())
		v.total = 42
		v.cells["consolidation@h7"] = control.Accepted
		v.draw()
		rows := strings.Split(sgr.ReplaceAllString(out.String(), ""), "\n")
		if len(rows) != 1+8+1+1 {
			t.Fatalf("width %d: got %d rows, want a header, 8 hosts and a footer:\n%s", width, len(rows), out.String())
		}
		for _, r := range rows[:9] {
			if n := utf8.RuneCountInString(strings.TrimRight(r, " ")); n >= width {
				t.Errorf("width %d: a row has %d columns: %q", width, n, r)
			}
		}
		if got := strings.Count(rows[1], "·"); got != 6 {
			t.Errorf("width %d: h1 shows %d waiting, want 6: %q", width, got, rows[1])
		}
		if got := strings.Count(rows[3], "·"); got != 5 {
			t.Errorf("width %d: h3, which has no gateway, shows %d waiting, want 5: %q", width, got, rows[3])
		}
	}
}
