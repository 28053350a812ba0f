package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxChat is the most bytes that one message to a chat may have; the
// chats that the original system speaks to cut at 2,000.
const MaxChat = 1900

// FormatServiceRoster renders the fleet for a chat, as messages of at most
// [MaxChat] bytes: a line that counts, then each trouble by name, then
// what is well, tier by tier and folded. A host daemon is mentioned when it is
// in trouble and does not count as an instance. A nil config means the original's
// tiers.
func FormatServiceRoster(r Registry, cfg *Config) []string {
	r.Beats = slices.Clone(r.Beats)
	r.Arrange(cfg)
	return ChatMessages(rosterLines(r, r.Entries()))
}

func rosterLines(r Registry, entries []Entry) []string {
	if len(entries) == 0 {
		return append([]string{"no instance is known: no daemon has sent a heartbeat"}, rosterTail(r)...)
	}
	services := withoutDaemons(entries)
	lines := []string{RosterSummary(entries)}
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
	for _, e := range services {
		if !e.Trouble() {
			well = append(well, e)
		}
	}
	return append(append(lines, foldEntries(well)...), rosterTail(r)...)
}

func withoutDaemons(entries []Entry) []Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Service == DaemonService })
}

// RosterSummary counts every instance of a service once, by its state: "42
// instances on 8 hosts: 1 down, 41 active".
func RosterSummary(entries []Entry) string {
	entries = withoutDaemons(entries)
	if len(entries) == 0 {
		return "no instance of a service"
	}
	hosts := map[string]bool{}
	for _, e := range entries {
		hosts[e.Host] = true
	}
	return fmt.Sprintf("%s on %s: %s", plural(len(entries), "instance"), plural(len(hosts), "host"), countStates(entries))
}

// countStates says how many entries are in which state, the worst first.
func countStates(entries []Entry) string {
	counts := map[string]int{}
	for _, e := range entries {
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
	return strings.Join(parts, ", ")
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

// ChatMessages packs lines into as few messages of at most [MaxChat] bytes as
// fit. A line that is too long for one message goes on in the next.
func ChatMessages(lines []string) []string {
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
