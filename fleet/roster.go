package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// RosterSchema is the version of the roster's JSON.
const RosterSchema = 1

// MaxChat is the most characters that one message to a chat may have; the
// chats that the original system speaks to cut at 2,000.
const MaxChat = 1900

// Entry is one instance as the roster shows it: its heartbeat and what follows
// from it.
type Entry struct {
	Heartbeat
	State      string   `json:"state"`           // down, deaf, or systemd's active state, else unknown
	Notes      []string `json:"notes,omitempty"` // DOWN, DEAF, DEGRADED: why, HELD: why, observe, behind, …
	Behind     bool     `json:"behind"`          // runs another revision than its checkout has
	LastSeenMS int64    `json:"last_seen_ms"`    // ago
	UptimeMS   int64    `json:"uptime_ms,omitempty"`

	trouble int // 0: none; the larger, the sooner it is shown
}

// The states of an entry that are not systemd's.
const (
	StateDown    = "down"    // missed its heartbeats; still expected
	StateDeaf    = "deaf"    // beats, but hears no ops
	StateUnknown = "unknown" // systemd's state is not known
)

// Troubles in the order in which they are worth reading.
const (
	troubleNone = iota
	troubleNote // behind, observe: as someone wanted it
	troubleHeld
	troubleUnit // the unit does not run
	troubleDegraded
	troubleDeaf
	troubleDown
)

// Trouble reports whether e needs somebody's attention: it would not do what
// an op says, or its unit does not run.
func (e Entry) Trouble() bool { return e.trouble >= troubleUnit }

// Entries returns the roster, in the order of the heartbeats.
func (r Registry) Entries() []Entry {
	conflicts := r.conflicts()
	out := make([]Entry, len(r.Beats))
	for i, h := range r.Beats {
		out[i] = r.entry(h, conflicts[h.Instance])
	}
	return out
}

func (r Registry) entry(h Heartbeat, conflict string) Entry {
	e := Entry{
		Heartbeat: h, State: cmp.Or(h.ActiveState, StateUnknown), LastSeenMS: r.Now.Sub(h.At).Milliseconds(),
		Behind: h.RunningRevision != "" && h.CheckoutRevision != "" && h.RunningRevision != h.CheckoutRevision,
	}
	note := func(trouble int, format string, args ...any) {
		e.Notes = append(e.Notes, printable(fmt.Sprintf(format, args...)))
		e.trouble = max(e.trouble, trouble)
	}
	down := h.Down(r.Now, DefaultHeartbeatInterval)
	switch {
	case down:
		e.State = StateDown
		note(troubleDown, "DOWN")
	case h.DeafSince != 0:
		e.State = StateDeaf
		note(troubleDeaf, "DEAF for %s", Humane(r.Now.Sub(h.DeafSince)))
	case h.SubscribedSince == 0:
		e.State = StateDeaf
		note(troubleDeaf, "DEAF")
	}
	if !down && h.ActiveState == "active" && h.Started > 0 && h.Started <= r.Now {
		e.UptimeMS = r.Now.Sub(h.Started).Milliseconds()
	}
	if conflict != "" {
		note(troubleDegraded, "DEGRADED: %s", conflict)
	}
	if hold, ok := r.Held(h.member()); ok {
		note(troubleHeld, "%s", strings.Replace(hold.String(), "held", "HELD", 1))
	} else if h.Held != "" && !down {
		note(troubleHeld, "HELD: %s", h.Held)
	}
	switch {
	case down, h.ActiveState == "active":
	case h.ActiveState == "failed":
		note(troubleUnit, "failed: %s", cmp.Or(h.Result, "reason not known"))
	default:
		note(troubleUnit, "unit %s", cmp.Or(h.ActiveState, "state not known"))
	}
	if h.Mode == ModeObserve {
		note(troubleNote, "observe")
	}
	if e.Behind {
		note(troubleNote, "behind")
	}
	if h.ControlledBy == BySelf || h.ControlledBy == ByLegacy {
		note(troubleNone, "controlled by %s", map[string]string{BySelf: "itself", ByLegacy: "the original"}[h.ControlledBy])
	}
	return e
}

// Roster is the roster as JSON: what sgfleet services -o json prints and what
// the simulator builds a twin of.
type Roster struct {
	Schema    int      `json:"schema"`
	Now       Time     `json:"now"` // Redis TIME
	Instances []Entry  `json:"instances"`
	Holds     []Hold   `json:"holds,omitempty"`
	Malformed []string `json:"malformed,omitempty"`
}

// Roster returns entries, which may be a part of r's, with what else r holds.
func (r Registry) Roster(entries []Entry) Roster {
	out := Roster{Schema: RosterSchema, Now: r.Now, Instances: entries, Holds: r.Holds}
	if out.Instances == nil {
		out.Instances = []Entry{}
	}
	for _, err := range r.Malformed {
		out.Malformed = append(out.Malformed, err.Error())
	}
	return out
}

// FormatRosterTable draws entries as a table, one line each.
func FormatRosterTable(entries []Entry) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = cmp.Or(printable(cells[i]), "-")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row("HOST", "SERVICE", "UNIT", "STATE", "RUNNING", "CHECKOUT", "UPTIME", "LAST SEEN", "NOTES")
	for _, e := range entries {
		service, uptime := strings.Replace(e.Instance, "@"+e.Host, "", 1), ""
		if e.UptimeMS > 0 {
			uptime = Humane(time.Duration(e.UptimeMS) * time.Millisecond)
		}
		row(e.Host, service, e.Unit, e.State, shortRevision(e.RunningRevision), shortRevision(e.CheckoutRevision),
			uptime, ago(e.LastSeenMS), strings.Join(e.Notes, ", "))
	}
	w.Flush()
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func ago(ms int64) string { return Humane(time.Duration(ms)*time.Millisecond) + " ago" }

// shortRevision is enough of a commit to find it again.
func shortRevision(rev string) string {
	if len(rev) > 9 {
		return rev[:9]
	}
	return rev
}

// FormatServiceRoster renders the fleet for a chat, as messages of at most
// [MaxChat] characters: a line that counts, then each trouble by name, then
// what is well, tier by tier and folded. A nil config means the original's
// tiers.
func FormatServiceRoster(r Registry, cfg *Config) []string {
	r.Beats = slices.Clone(r.Beats)
	r.Arrange(cfg)
	return chunk(rosterLines(r, r.Entries()))
}

func rosterLines(r Registry, entries []Entry) []string {
	if len(entries) == 0 {
		return append([]string{"no instance is known: no daemon has sent a heartbeat"}, rosterTail(r)...)
	}
	lines := []string{rosterSummary(entries)}
	var well []Entry
	worst := slices.Clone(entries)
	slices.SortStableFunc(worst, func(a, b Entry) int { return cmp.Compare(b.trouble, a.trouble) })
	for _, e := range worst {
		if !e.Trouble() {
			continue
		}
		line := e.Instance + ": " + strings.Join(e.Notes, ", ")
		if e.State == StateDown {
			line += ", last seen " + ago(e.LastSeenMS)
			if e.ActiveState != "" {
				line += " as " + e.ActiveState
			}
		}
		lines = append(lines, printable(line))
	}
	for _, e := range entries {
		if !e.Trouble() {
			well = append(well, e)
		}
	}
	return append(append(lines, foldEntries(well)...), rosterTail(r)...)
}

// rosterSummary counts every instance once, by its state.
func rosterSummary(entries []Entry) string {
	hosts := map[string]bool{}
	counts := map[string]int{}
	for _, e := range entries {
		hosts[e.Host] = true
		counts[e.State]++
	}
	rank := func(state string) int {
		switch state {
		case StateDown:
			return 0
		case StateDeaf:
			return 1
		case "failed":
			return 2
		case "active":
			return 4
		}
		return 3
	}
	parts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	for i, state := range parts {
		parts[i] = fmt.Sprintf("%d %s", counts[state], printable(state))
	}
	return fmt.Sprintf("%s on %s: %s", plural(len(entries), "instance"), plural(len(hosts), "host"), strings.Join(parts, ", "))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// foldEntries writes entries that say the same of one service as one line.
func foldEntries(entries []Entry) []string {
	type key struct{ tier, service, says string }
	var order []key
	groups := map[key][]Instance{}
	for _, e := range entries {
		says := e.State
		if e.RunningRevision != "" {
			says += " on " + shortRevision(e.RunningRevision)
		}
		if e.Behind {
			says += ", checkout at " + shortRevision(e.CheckoutRevision)
		}
		for _, n := range e.Notes {
			if n != "behind" {
				says += ", " + n
			}
		}
		k := key{e.Tier, e.Service, says}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], e.member().Instance)
	}
	var lines []string
	for _, k := range order {
		line := strings.Join(FoldInstances(groups[k]), " ")
		if n := len(groups[k]); n > 1 {
			line += fmt.Sprintf(" (%d)", n)
		}
		lines = append(lines, line+": "+printable(k.says))
	}
	return lines
}

// rosterTail says what the registry holds beside instances.
func rosterTail(r Registry) []string {
	var lines []string
	for _, h := range r.Holds {
		if h.Active(r.Now) {
			lines = append(lines, "hold on "+printable(h.Target)+": "+h.String())
		}
	}
	for _, err := range r.Malformed {
		lines = append(lines, "unreadable: "+printable(err.Error()))
	}
	return lines
}

// chunk packs lines into as few messages as fit. A line that is too long for
// one message goes on in the next.
func chunk(lines []string) []string {
	var out []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			out = append(out, b.String())
			b.Reset()
		}
	}
	for _, line := range lines {
		for len(line) > MaxChat {
			flush()
			cut := strings.LastIndexAny(line[:MaxChat], " ,")
			if cut < MaxChat/2 {
				cut = MaxChat - 1
				for cut > 0 && line[cut]&0xc0 == 0x80 { // not within a character
					cut--
				}
			} else {
				cut++
			}
			out = append(out, line[:cut])
			line = line[cut:]
		}
		if b.Len() > 0 && b.Len()+1+len(line) > MaxChat {
			flush()
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	flush()
	return out
}
