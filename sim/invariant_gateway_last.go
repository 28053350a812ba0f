package sim

import (
	"strconv"
	"time"
)

func init() {
	registerInvariant(Invariant{
		Name:  "gateway_last",
		Help:  "a gateway is restarted only when every other instance that accepted the op has finished or is past its deadline (or the publisher is dead and the op's gateway deadline has passed)",
		Armed: "gateways restarted by an op that other tiers accepted too",
		Judge: judgeGatewayLast,
	})
}

func judgeGatewayLast(r *Record, op *opRecord) Finding {
	var f Finding
	cfg := r.Scenario.Config
	for _, rs := range r.restarts {
		o := rs.op
		m := r.members[rs.instance]
		if o == nil || rs.raw || op != nil && o != op || m == nil || !cfg.IsGateway(m.Tier) || !o.restartsOn() || o.published() < 0 {
			continue
		}
		pub := r.Events[o.published()]
		ms, _ := strconv.ParseInt(pub.Attr("gateway_deadline_ms"), 10, 64)
		late := ms > 0 && r.at(rs.at) >= time.Duration(ms)*time.Millisecond // the publisher must be dead by then
		armed := false
		for _, other := range r.targets(o) {
			if cfg.IsGateway(other.Tier) || len(o.acks[other.name]) == 0 {
				continue
			}
			acc := r.accepted(o, other.name)
			if acc < 0 || r.Events[acc].Attr("text") == "true" {
				continue
			}
			armed = true
			done := r.final(o, other.name)
			switch {
			case late:
			case acc > rs.at && r.at(rs.at) < pub.T+cfg.ControlReplyTimeout.D():
				f.violate(r.seqs(o.published(), rs.at, acc), "gateway %s was restarted for %s before %s had even accepted it", rs.instance, o.name, other.name)
			case acc < rs.at && (done < 0 || done > rs.at) && !r.pastDeadline(other, acc, rs.at):
				f.violate(r.seqs(o.published(), acc, r.restartOf(o, other.name), rs.at, done), "gateway %s was restarted for %s while %s was still at it", rs.instance, o.name, other.name)
			}
		}
		if armed {
			f.Armed++
		}
	}
	return f
}

// pastDeadline reports whether the instance that accepted at acc had run out of
// time to be done at event i. Its daemon may have died: then nobody waits
// longer than that either.
func (r *Record) pastDeadline(m *member, acc, i int) bool {
	limit := m.doneTimeout
	if t := r.Scenario.Config.TierDoneTimeout(m.Tier); t > 0 {
		limit = t
	}
	return limit > 0 && r.at(i) >= r.at(acc)+limit
}

// restartOf is the index of instance's restart for o, −1 without.
func (r *Record) restartOf(o *opRecord, instance string) int {
	for _, rs := range r.restarts {
		if rs.op == o && rs.instance == instance {
			return rs.at
		}
	}
	return -1
}
