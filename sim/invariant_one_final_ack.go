package sim

import (
	"slices"
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
			self := rs >= 0 && m.process == name && r.nextLife(name, rs, len(r.Events)) // its own next life speaks, if there is one
			if last == nil || last.end >= 0 && !self {
				continue // a crash: nobody is left to speak
			}
			f.Armed++
			if r.final(o, name) >= 0 {
				continue
			}
			if r.excused(o, m, acc) || r.Scenario.Config.IsGateway(m.Tier) && rs < 0 {
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
		if first >= 0 && r.Events[first].Attr("status") != e.Attr("status") && !r.nextLife(name, first, i) {
			f.violate(r.seqs(o.published(), first, i), "%s answered %s twice, first %s, then %s", name, o.name, r.Events[first].Attr("status"), e.Attr("status"))
			return f
		}
		if first < 0 {
			first = i
		}
	}
	return f
}

// nextLife reports whether the process of a self-restarting instance began a
// new life between two events. Its note about a restart that did not happen may
// reach Redis late, behind a partition; the next life then finds a new
// invocation and says ok where the one before said failed. The first word is
// the one that counts.
func (r *Record) nextLife(name string, from, to int) bool {
	return slices.ContainsFunc(r.processes[name], func(l life) bool { return l.boot > from && l.boot < to })
}

// excused reports whether m, which never said what became of o, had no chance
// to: its word is due when its restart is over, and it tries for a minute.
func (r *Record) excused(o *opRecord, m *member, acc int) bool {
	if m.process == m.name && r.noteLost(acc) {
		return true
	}
	for _, x := range r.restarts {
		if x.op == o && x.instance == m.name && x.done >= 0 {
			due := r.at(x.done) + r.Scenario.Config.TierSettle(m.Tier)
			return r.end < due+ackPatience || !r.clear(m, due, min(due+time.Minute, r.end))
		}
	}
	// It did not act: when it knew that is not in the log.
	latest := r.at(acc) + m.doneTimeout + r.Scenario.Config.LockTTL.D() + time.Minute
	return r.end < latest || r.muted(m, r.at(acc), latest)
}

// noteLost reports whether Redis lost data within a minute after event acc: who
// restarts itself hands its word on to its next life through Redis.
func (r *Record) noteLost(acc int) bool {
	for _, e := range r.Events[acc:] {
		if e.T > r.at(acc)+time.Minute {
			return false
		}
		if e.Kind == EvRedis && slices.Contains([]string{"down", "flushed", "failover"}, e.Attr("what")) {
			return true
		}
	}
	return false
}

// clear reports whether m could reach Redis for ackPatience on end, some time
// between from and to.
func (r *Record) clear(m *member, from, to time.Duration) bool {
	at := from
	for _, q := range r.mutings(m) {
		if q.to <= at || q.from >= to {
			continue
		}
		if q.from-at >= ackPatience {
			return true
		}
		at = max(at, q.to)
	}
	return to-at >= ackPatience
}

// muted reports whether something kept m from reaching Redis at any time
// between from and to.
func (r *Record) muted(m *member, from, to time.Duration) bool {
	return slices.ContainsFunc(r.mutings(m), func(q span) bool { return q.from < to && q.to > from })
}

// span is a stretch of time.
type span struct{ from, to time.Duration }

// mutings are the times at which m could not reach Redis, by their beginning: a
// fault of its host's network, of Redis itself, a freeze, or the end of its
// daemon.
func (r *Record) mutings(m *member) []span {
	var out []span
	faults := map[int]int{} // Seq of a fault → index in out
	down := -1
	for _, e := range r.Events {
		switch e.Kind {
		case EvFault:
			if !slices.Contains([]string{"partition", "freeze", "slow_consumer", "crash", "leave", "kill_lock_holder", "redis"}, e.Attr("action")) {
				continue
			}
			if hosts := splitNames(e.Attr("hosts")); len(hosts) == 0 || slices.Contains(hosts, m.Host) {
				faults[e.Seq] = len(out)
				out = append(out, span{e.T, r.end + 1})
			}
		case EvHealed:
			if k, ok := faults[e.Cause]; ok {
				out[k].to = e.T
			}
		case EvRedis:
			switch what := e.Attr("what"); {
			case down < 0 && slices.Contains([]string{"down", "readonly", "oom", "stalled"}, what):
				down = len(out)
				out = append(out, span{e.T, r.end + 1})
			case down >= 0 && slices.Contains([]string{"up", "writable", "resumed"}, what):
				out[down].to, down = e.T, -1
			}
		case EvCrash, EvExit:
			if e.Actor == m.process {
				out = append(out, span{e.T, e.T + ackPatience})
			}
		}
	}
	return out
}
