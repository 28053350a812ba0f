package sim

import (
	"time"

	"github.com/sgfleet/sgfleet/control"
)

func init() {
	registerInvariant(Invariant{
		Name:  "one_final_ack",
		Help:  "who accepted an op and lived on says exactly once what became of it; the same word may arrive twice, two different ones may not",
		Armed: "instances that accepted an op and whose daemon lived on",
		Judge: judgeOneFinalAck,
	})
}

// ackPatience is how long after an instance acted its last word may be on its
// way: the daemon's five seconds for one confirmed push, on fresh connections
// and with back-off of at most five seconds between them.
const ackPatience = 20 * time.Second

func judgeOneFinalAck(r *Record, op *opRecord) Finding {
	var f Finding
	for _, o := range r.each(op) {
		for _, name := range r.names {
			m := r.members[name]
			if m == nil || len(o.acks[name]) == 0 {
				continue
			}
			f.add(r.conflictingAcks(o, name))
			acc := r.accepted(o, name)
			if acc < 0 || r.Events[acc].Attr("text") == "true" {
				continue
			}
			last := r.lifeAt(m.process, acc)
			rs := r.restartOf(o, name)
			self := rs >= 0 && m.process == name // its own next life speaks
			if last == nil || last.end >= 0 && !self {
				continue // a crash: nobody is left to speak
			}
			f.Armed++
			if r.final(o, name) >= 0 {
				continue
			}
			due := r.at(acc) + m.doneTimeout + r.Scenario.Config.LockTTL.D()
			for _, x := range r.restarts {
				if x.op == o && x.instance == name && x.done >= 0 {
					due = r.at(x.done) + r.Scenario.Config.TierSettle(m.Tier)
				}
			}
			if r.muted(m, due, due+ackPatience) || r.end < due+ackPatience || r.Scenario.Config.IsGateway(m.Tier) && rs < 0 {
				continue
			}
			f.violate(r.seqs(o.published(), acc, rs), "%s accepted %s and its daemon %s lived on, but it never said what became of it", name, o.name, m.process)
		}
	}
	return f
}

func (f *Finding) add(other Finding) {
	f.Armed += other.Armed
	f.Violations = append(f.Violations, other.Violations...)
}

// conflictingAcks finds two done acks that say different things.
func (r *Record) conflictingAcks(o *opRecord, name string) Finding {
	var f Finding
	first := -1
	for _, i := range o.acks[name] {
		e := r.Events[i]
		if control.Phase(e.Attr("phase")) != control.Done {
			continue
		}
		if first >= 0 && r.Events[first].Attr("status") != e.Attr("status") {
			f.violate(r.seqs(o.published(), first, i), "%s answered %s twice, first %s, then %s", name, o.name, r.Events[first].Attr("status"), e.Attr("status"))
			return f
		}
		if first < 0 {
			first = i
		}
	}
	return f
}

// muted reports whether something kept m from reaching Redis between from and
// to: a fault of the network or of Redis itself, a freeze, or the end of its
// daemon.
func (r *Record) muted(m *member, from, to time.Duration) bool {
	began := map[int]time.Duration{} // Seq of a fault → when it began
	for _, e := range r.Events {
		switch e.Kind {
		case EvFault:
			switch e.Attr("action") {
			case "partition", "redis", "freeze", "slow_consumer", "crash", "leave", "stop_unit", "kill_lock_holder":
				began[e.Seq] = e.T
			}
		case EvHealed:
			if t, ok := began[e.Cause]; ok && t < to && e.T > from {
				return true
			}
			delete(began, e.Cause)
		case EvRedis, EvCrash, EvExit:
			if e.T >= from-ackPatience && e.T <= to && (e.Kind == EvRedis || e.Actor == m.process) {
				return true
			}
		}
	}
	for _, t := range began {
		if t < to {
			return true
		}
	}
	return false
}
