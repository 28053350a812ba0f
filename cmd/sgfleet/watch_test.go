package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sgfleet/sgfleet/fleet"
)

// fleetOf is a registry of n instances of web that are well, one that is down
// at the end, a hold and an entry that cannot be read.
func fleetOf(n int) rosterView {
	now := fleet.TimeOf(time.Now())
	r := rosterView{Registry: fleet.Registry{Now: now, Holds: []fleet.Hold{{Target: "web", By: "ann", Reason: strings.Repeat("disks ", 30)}}}}
	for i := range n + 1 {
		host := fmt.Sprintf("h%d", i+1)
		r.Beats = append(r.Beats, fleet.Heartbeat{
			Instance: "web@" + host, Service: "web", Host: host, Tier: "web", Unit: "stargazer-web.service",
			ActiveState: "active", SubscribedSince: 1, Started: 1, At: now,
		})
	}
	r.Beats[n].At = now.Add(-time.Hour)
	r.entries = r.Entries()
	r.notes = []string{"unreadable: sg:control:live x@y"}
	return r
}

// A page of --watch never scrolls its top away, and shows who is down however
// short the terminal is.
func TestRosterPageFits(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	r := fleetOf(30)
	for rows := 6; rows < 45; rows++ {
		for _, cols := range []int{40, 80, 200} {
			lines := a.rosterPage(r, cols, rows)
			page := strings.Join(lines, "\n")
			if len(lines) > rows-1 {
				t.Errorf("%d lines on %d rows", len(lines), rows)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > cols {
					t.Errorf("wider than %d: %s", cols, l)
				}
			}
			shown := strings.Count(page, "\nh")
			if strings.Contains(page, "\nhold on") {
				shown--
			}
			whole := rows >= 31+5
			if !strings.Contains(page, "h31 ") || !strings.Contains(lines[0], "  31 instances on 31 hosts: 1 d") || whole != (shown == 31) ||
				whole == strings.Contains(page, fmt.Sprintf("… and %d more", 31-shown)) {
				t.Errorf("on %d × %d:\n%s", cols, rows, page)
			}
		}
	}
}
