package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/sgfleet/sgfleet/control"
	"github.com/sgfleet/sgfleet/fleet"
)

func init() {
	registerInvariant(Invariant{
		Name:  "report_matches_truth",
		Help:  "what the final roster says of each instance is what really happened to it: ok means restarted or pulled and up, silent means that nothing had been heard, and everyone expected is named exactly once",
		Armed: "instances named by a report",
		Judge: judgeReport,
	})
}

func judgeReport(r *Record, op *opRecord) Finding {
	var f Finding
	for _, o := range r.each(op) {
		if o.report < 0 {
			continue
		}
		rep := r.Events[o.report]
		class := map[string]string{}
		for _, c := range []string{"ok", "failed", "refused", "unfinished", "silent"} {
			for _, name := range splitNames(rep.Attr(c)) {
				if class[name] != "" {
					f.violate(r.seqs(o.report), "the report of %s names %s twice, as %s and as %s", o.name, name, class[name], c)
				}
				class[name] = c
			}
		}
		for _, name := range o.expected {
			if class[name] == "" && r.knownBefore(name, o) {
				f.violate(r.seqs(o.published(), o.report), "the report of %s does not name %s, which its target %q selects", o.name, name, o.target)
			}
		}
		for _, name := range r.names {
			if class[name] == "" {
				continue
			}
			f.Armed++
			if why, events := r.lie(o, name, class[name]); why != "" {
				f.violate(r.seqs(append(events, o.published(), o.report)...), "the report of %s calls %s %s, but %s", o.name, name, class[name], why)
			}
		}
	}
	return f
}

// knownBefore reports whether the registry had to know name when o was
// dispatched: only then can a report be blamed for leaving it out.
func (r *Record) knownBefore(name string, o *opRecord) bool {
	known, lost := false, time.Duration(-1)
	for i, e := range r.Events {
		if o.dispatch >= 0 && i >= o.dispatch {
			break
		}
		switch e.Kind {
		case EvHeartbeat:
			known = known || e.Instance == name
		case EvLeave:
			known = known && e.Host != r.members[name].Host
		case EvRedis:
			lost = e.T // the registry may be gone with it, until the next heartbeats
		}
	}
	if lost < 0 {
		return known
	}
	l := r.lifeAt(r.members[name].process, o.dispatch)
	patience := fleet.MissedBeats*r.Scenario.Config.HeartbeatInterval.D() + ackPatience
	return known && r.at(o.dispatch) > lost+patience && l != nil && r.at(o.dispatch) > r.at(l.boot)+patience
}

// lie compares what a report says of one instance with what happened; "" when
// it is the truth.
func (r *Record) lie(o *opRecord, name, class string) (why string, events []int) {
	m, rep := r.members[name], r.Events[o.report]
	acks := slices.DeleteFunc(slices.Clone(o.acks[name]), func(i int) bool { return i > o.report })
	fin := r.final(o, name)
	if fin > o.report {
		fin = -1
	}
	pending := fin >= 0 && control.Status(r.Events[fin].Attr("status")) == control.Pending
	switch class {
	case "silent":
		// Whoever accepted a restart and never came back is silent too.
		if fin >= 0 && r.at(fin) < r.at(o.report)-ackReadGrace && !r.ackLost(fin) {
			return "it had answered", []int{fin}
		}
	case "refused":
		if i := r.restartOf(o, name); i >= 0 && i < o.report {
			return "it was restarted", []int{i}
		}
	case "unfinished":
		if fin >= 0 && !pending && r.at(fin) < r.at(o.report)-ackReadGrace && !r.ackLost(fin) {
			return "it had finished", []int{fin}
		}
	case "ok":
		if len(acks) == 0 {
			return "it had not answered", nil
		}
		if fin >= 0 && r.Events[fin].Attr("text") == "true" {
			return "", nil
		}
		if fin < 0 && rep.Attr("no_wait") != "true" && !r.legacy(name) { // a line of text is all that those say
			return "it had not said that it was done", acks[len(acks)-1:]
		}
		return r.notDone(o, m, fin)
	case "failed":
		if fin < 0 {
			return "it had not answered", nil
		}
		if r.Events[fin].Attr("text") == "true" {
			return "", nil
		}
		if rs := r.restartOf(o, name); rs >= 0 && r.stayedUp(m, rs, fin) && o.kind == "restart" {
			return "it was restarted and stayed up", []int{rs, fin}
		}
	}
	return "", nil
}

// ackReadGrace is how far behind the newest ack a report may be: the collector
// reads every 200 ms at its slowest, and the link takes its time.
const ackReadGrace = 2 * time.Second

// ackLost reports whether Redis lost its data before the collector had to have
// read the ack at event fin: then nobody can know of it.
func (r *Record) ackLost(fin int) bool {
	for _, e := range r.Events[fin:] {
		if e.T > r.at(fin)+ackReadGrace {
			return false
		}
		if e.Kind == EvRedis && slices.Contains([]string{"down", "flushed", "failover"}, e.Attr("what")) {
			return true
		}
	}
	return false
}

// notDone says in what an instance that reported success had not succeeded.
func (r *Record) notDone(o *opRecord, m *member, fin int) (string, []int) {
	status := control.OK
	if fin >= 0 {
		status = control.Status(r.Events[fin].Attr("status"))
	}
	if status == control.Skipped || o.kind == "ping" {
		return "", nil
	}
	if fin < 0 {
		return "", nil // accepted is all that was asked for
	}
	if o.kind == "pull" || o.kind == "update" {
		if path := m.checkout; path != "" {
			if tip, at := r.tip(path, r.at(o.published())); tip != "" {
				head, moved := r.head(m, fin)
				if head != "" && head != tip && !r.descends(path, tip, head) {
					return fmt.Sprintf("its checkout %s stood at %s and not at %s, the remote's tip when %s was published", path, short(head), short(tip), o.name), []int{at, moved, fin}
				}
			}
		}
	}
	if !o.restartsOn() {
		return "", nil
	}
	rs := r.restartOf(o, m.name)
	if rs < 0 {
		return "it was never restarted", []int{fin}
	}
	if !r.newInvocation(m, rs, fin) {
		return "it had no new invocation", []int{rs, fin}
	}
	return "", nil
}

// newInvocation reports whether the unit began a new life between its restart
// and the ack.
func (r *Record) newInvocation(m *member, from, to int) bool {
	// An embedded daemon speaks as soon as its process runs, a moment before
	// systemd calls the unit active.
	return slices.ContainsFunc(m.starts, func(at int) bool { return at > from && at < to })
}

// stayedUp reports whether the unit came up after the restart and was still up
// at the ack and half a minute later.
func (r *Record) stayedUp(m *member, from, to int) bool {
	up := false
	for _, c := range m.units {
		if c.at <= from || r.at(c.at) > r.at(to)+30*time.Second {
			continue
		}
		if c.active {
			up = true
		} else if up {
			return false // it died again
		}
	}
	return up && m.activeAt(to)
}

// tip is the remote's newest revision at time t as far as the log tells, and
// the event that says so. A remote that nobody pushed to stands where the
// checkouts began.
func (r *Record) tip(path string, t time.Duration) (string, int) {
	tip, at := "", -1
	for i, e := range r.Events {
		if e.Kind == EvPush && (e.Attr("path") == path || e.Attr("path") == "*") && e.T <= t {
			tip, at = e.Attr("revision"), i
		}
	}
	return tip, at
}

// head is the revision at which m's checkout stood at event i.
func (r *Record) head(m *member, i int) (string, int) {
	head, at := "", m.joined
	if len(m.units) > 0 {
		head = m.units[0].revision
	}
	for k, e := range r.Events {
		if k > i {
			break
		}
		if e.Kind == EvRevision && e.Host == m.Host && e.Attr("path") == m.checkout {
			head, at = e.Attr("new"), k
		}
	}
	return head, at
}

// descends reports whether head was pushed to path after tip: a later pull may
// well have brought more than the op asked for.
func (r *Record) descends(path, tip, head string) bool {
	seen := false
	for _, e := range r.Events {
		if e.Kind != EvPush || e.Attr("path") != path && e.Attr("path") != "*" {
			continue
		}
		if e.Attr("revision") == tip {
			seen = true
		}
		if e.Attr("revision") == head {
			return seen
		}
	}
	return false
}

func short(rev string) string { return rev[:min(len(rev), 8)] }
