package fleet

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// RosterSchema is the version of the roster's JSON.
const RosterSchema = 1

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
	daemons := map[string]Heartbeat{} // by host
	for _, h := range r.Beats {
		if h.Service == DaemonService {
			daemons[h.Host] = h
		}
	}
	out := make([]Entry, len(r.Beats))
	for i, h := range r.Beats {
		out[i] = r.entry(h, daemons[h.Host], conflicts[h.Instance])
	}
	return out
}

func (r Registry) entry(h, daemon Heartbeat, conflict string) Entry {
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
	case h.Dropped(daemon, r.Now, DefaultHeartbeatInterval):
		e.State = StateDown
		note(troubleDown, "DOWN: no longer served by %s", h.Host)
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
	if h.Service != DaemonService && (h.ControlledBy == BySelf || h.ControlledBy == ByLegacy) {
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

func ago(ms int64) string { return Humane(time.Duration(ms)*time.Millisecond) + " ago" }

// shortRevision is enough of a commit to find it again.
func shortRevision(rev string) string {
	if len(rev) > 9 {
		return rev[:9]
	}
	return rev
}
